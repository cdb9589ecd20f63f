/* Stands before libc's fsync and fdatasync in a process that failing_sync.rs starts. Each call is numbered and
 * noted in the file "syncs" of the folder that FARRIER_FAILING_SYNC names; where the file "rule" there says so,
 * it is not carried out and fails as a broken disk makes it fail. A rule is three lines: the first and the last
 * number that fail, and a text that the path of the file has to contain. Files without it are not numbered.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct rule {
    unsigned long first, last;
    char path[PATH_MAX];
};

static atomic_ulong syncs;

static int file_beside(char *path, size_t size, const char *name) {
    const char *folder = getenv("FARRIER_FAILING_SYNC");
    return folder != NULL && snprintf(path, size, "%s/%s", folder, name) < (int)size;
}

/* Without a rule nothing fails, and every file is numbered. */
static struct rule read_rule(void) {
    struct rule rule = {.first = 1, .last = 0, .path = ""};
    char path[PATH_MAX], text[PATH_MAX + 64];
    if (!file_beside(path, sizeof path, "rule")) return rule;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return rule;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) return rule;
    text[length] = '\0';
    if (sscanf(text, "%lu %lu %4095[^\n]", &rule.first, &rule.last, rule.path) < 2) {
        fprintf(stderr, "failing_sync: expected two numbers and a path in %s\n", path);
        abort();
    }
    return rule;
}

static void note(unsigned long number, int fails, const char *file) {
    char path[PATH_MAX], line[PATH_MAX + 64];
    if (!file_beside(path, sizeof path, "syncs")) return;
    int length = snprintf(line, sizeof line, "%lu %s %s\n", number, fails ? "failed" : "done", file);
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || write(log, line, (size_t)length) != length) abort();
    close(log);
}

static int sync_or_fail(int file, const char *function) {
    char link[64], path[PATH_MAX] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = '\0';
    struct rule rule = read_rule();
    if (strstr(path, rule.path) != NULL) {
        unsigned long number = atomic_fetch_add(&syncs, 1) + 1;
        int fails = number >= rule.first && number <= rule.last;
        note(number, fails, path);
        if (fails) {
            errno = EIO;
            return -1;
        }
    }
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, function);
    return next(file);
}

int fsync(int file) { return sync_or_fail(file, "fsync"); }
int fdatasync(int file) { return sync_or_fail(file, "fdatasync"); }
