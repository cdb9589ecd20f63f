//! How much processor time a process has taken, from /proc.

use std::time::Duration;

use anyhow::Context;

/// What Linux counts in for programs, whatever it counts in for itself.
const TICKS_PER_SECOND: u64 = 100;

/// Of this process, in user and system mode.
pub(super) fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = ticks_of(&stat).with_context(|| format!("{path} is not as proc(5) says"))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// The fields utime and stime; the name before them may hold blanks and brackets.
fn ticks_of(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(ticks_of(stat), Some(300));
        assert_eq!(ticks_of("nonsense"), None);
    }

    #[test]
    fn this_process_has_taken_some_and_it_does_not_go_back() {
        let pid = std::process::id();
        let before = processor_time(pid).unwrap();
        assert!(processor_time(pid).unwrap() >= before);
    }
}
