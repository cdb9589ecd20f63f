// Uploads images in parts. The server finds an upload by the digest of its file, so whoever chooses the same file again goes on
// where it broke off, after a lost connection as after a reload of the page.
"use strict";

(() => {
    /** Octets of one request: what a break costs at most. */
    const PART = 4 << 20;
    /** Octets that are read at a time to make the digest. */
    const CHUNK = 1 << 20;
    /** Pauses between attempts, in ms; the last one stays. */
    const PAUSES = [500, 1000, 2000, 5000, 10000];
    /** File names that are remembered, by digest. */
    const NAMES = "farrier-image-names";
    const MOST_NAMES = 200;

    const K = new Int32Array(64);
    const START = new Int32Array(8);
    // The first 32 bits of the fractional parts of the roots of the first primes (FIPS 180-4, 4.2.2 and 5.3.3).
    for (let number = 2, found = 0; found < 64; number += 1) {
        let isPrime = true;
        for (let by = 2; by * by <= number; by += 1) if (number % by === 0) isPrime = false;
        if (!isPrime) continue;
        const fraction = (root) => (root - Math.floor(root)) * 2 ** 32;
        if (found < 8) START[found] = fraction(Math.sqrt(number));
        K[found] = fraction(Math.cbrt(number));
        found += 1;
    }

    /** SHA-256 of octets that come one after the other; the browser's own takes only what is whole in memory. */
    class Sha256 {
        constructor() {
            this.state = START.slice();
            this.words = new Int32Array(64);
            this.rest = new Uint8Array(64);
            this.filled = 0;
            this.length = 0;
        }

        block(octets, at) {
            const { words: w, state: h } = this;
            for (let t = 0; t < 16; t += 1) {
                const i = at + 4 * t;
                w[t] = (octets[i] << 24) | (octets[i + 1] << 16) | (octets[i + 2] << 8) | octets[i + 3];
            }
            for (let t = 16; t < 64; t += 1) {
                const x = w[t - 15];
                const y = w[t - 2];
                const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
                const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
                w[t] = (w[t - 16] + s0 + w[t - 7] + s1) | 0;
            }
            let a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], i = h[7];
            for (let t = 0; t < 64; t += 1) {
                const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
                const t1 = (i + s1 + ((e & f) ^ (~e & g)) + K[t] + w[t]) | 0;
                const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
                const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
                i = g; g = f; f = e; e = (d + t1) | 0; d = c; c = b; b = a; a = (t1 + t2) | 0;
            }
            h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e; h[5] += f; h[6] += g; h[7] += i;
        }

        update(octets) {
            this.length += octets.length;
            let at = 0;
            if (this.filled > 0) {
                at = Math.min(64 - this.filled, octets.length);
                this.rest.set(octets.subarray(0, at), this.filled);
                this.filled += at;
                if (this.filled < 64) return;
                this.block(this.rest, 0);
                this.filled = 0;
            }
            for (; at + 64 <= octets.length; at += 64) this.block(octets, at);
            this.rest.set(octets.subarray(at), 0);
            this.filled = octets.length - at;
        }

        hex() {
            const bits = new DataView(new ArrayBuffer(8));
            bits.setUint32(0, Math.floor(this.length / 2 ** 29));
            bits.setUint32(4, (this.length << 3) >>> 0);
            const padding = new Uint8Array(((this.filled < 56 ? 56 : 120) - this.filled));
            padding[0] = 0x80;
            this.update(padding);
            this.update(new Uint8Array(bits.buffer));
            return Array.from(this.state, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
        }
    }

    const names = () => {
        try {
            return JSON.parse(localStorage.getItem(NAMES)) || {};
        } catch {
            return {};
        }
    };

    const remember = (sha256, name) => {
        const others = Object.entries(names()).filter(([other]) => other !== sha256);
        const kept = Object.fromEntries([...others.slice(1 - MOST_NAMES), [sha256, name]]);
        try {
            localStorage.setItem(NAMES, JSON.stringify(kept));
        } catch {
            // A browser that keeps nothing shows digests instead of names.
        }
    };

    /** Shows beside each digest the file that it is of, where this browser has sent it. */
    const showNames = (within) => {
        const known = names();
        for (const place of within.querySelectorAll("[data-name-of]")) {
            const name = known[place.dataset.nameOf];
            if (name) place.textContent = name;
        }
    };

    const root = document.getElementById("uploads");
    showNames(document);
    if (!root) return;

    const say = root.dataset;
    const filled = (text, ...values) => values.reduce((all, value) => all.replace("{}", value), text);
    const size = (octets) => {
        if (octets < 1000) return `${octets} B`;
        const units = ["KB", "MB", "GB", "TB"];
        let tenths = Math.floor(octets / 100);
        let unit = 0;
        while (tenths >= 10000 && unit < units.length - 1) {
            tenths = Math.floor(tenths / 1000);
            unit += 1;
        }
        return `${Math.floor(tenths / 10)}.${tenths % 10} ${units[unit]}`;
    };
    const span = (seconds) => {
        const whole = Math.ceil(seconds);
        const of = (value, unit) => `${value}${say.gap}${unit}`;
        if (whole < 60) return of(whole, say.seconds);
        if (whole < 3600) return `${of(Math.floor(whole / 60), say.minutes)} ${of(whole % 60, say.seconds)}`;
        return `${of(Math.floor(whole / 3600), say.hours)} ${of(Math.floor((whole % 3600) / 60), say.minutes)}`;
    };
    const wait = (ms, signal) => new Promise((resolve) => {
        const timer = setTimeout(resolve, ms);
        signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
    });

    /** What the server refused for good: sending the same again would bring the same. */
    class Refused extends Error {}

    /** Asks the server; gives its answer, `null` where the line or the server failed and may be back soon. */
    const ask = (method, path, body, type, signal, onProgress) => new Promise((resolve) => {
        const request = new XMLHttpRequest();
        const stop = () => request.abort();
        request.open(method, path);
        request.responseType = "json";
        request.setRequestHeader("hx-request", "true");
        request.setRequestHeader("content-type", type);
        if (onProgress) request.upload.addEventListener("progress", (event) => onProgress(event.loaded));
        request.addEventListener("loadend", () => {
            signal.removeEventListener("abort", stop);
            resolve(request.status === 0 ? null : { status: request.status, body: request.response || {} });
        });
        signal.addEventListener("abort", stop, { once: true });
        request.send(body);
    });

    class Upload {
        constructor(file, signature) {
            this.file = file;
            this.signature = signature;
            this.sha256 = null;
            this.state = "queued";
            this.offset = 0;
            this.row = document.getElementById("upload-row").content.firstElementChild.cloneNode(true);
            this.part = (name) => this.row.querySelector(`[data-part=${name}]`);
            this.part("name").textContent = file.name;
            this.bar = this.part("bar");
            this.bar.max = Math.max(file.size, 1);
            this.bar.setAttribute("aria-label", file.name);
            this.part("pause").addEventListener("click", () => this.pauseOrGoOn());
            this.part("end").addEventListener("click", () => this.end());
            this.controller = new AbortController();
            root.append(this.row);
            this.show("queued", say.queued);
        }

        show(state, text) {
            const isNew = state !== this.state;
            this.state = state;
            this.row.dataset.state = state;
            this.bar.value = state === "stored" ? this.bar.max : this.offset;
            this.part("text").textContent = text;
            // Only what changes the matter is read out, not each percent.
            if (isNew) this.part("told").textContent = `${this.file.name}: ${text}`;
            const isOver = state === "stored" || state === "refused";
            const pause = this.part("pause");
            pause.hidden = isOver;
            pause.textContent = state === "paused" ? say.goOn : say.pause;
            pause.setAttribute("aria-label", `${pause.textContent}: ${this.file.name}`);
            const end = this.part("end");
            end.hidden = state === "stored";
            end.textContent = state === "refused" ? say.dismiss : say.giveUp;
            end.setAttribute("aria-label", `${end.textContent}: ${this.file.name}`);
        }

        pauseOrGoOn() {
            if (this.state === "paused") {
                this.show("queued", say.queued);
                goOn();
            } else {
                this.show("paused", filled(say.paused, size(this.offset), size(this.file.size)));
                this.controller.abort();
            }
        }

        async end() {
            const isOver = this.state === "refused";
            this.show("refused", say.givenUp);
            this.controller.abort();
            this.isGone = true;
            this.row.remove();
            if (this.sha256 && !isOver) {
                // What has come is removed; where that fails it is removed after a day.
                await ask("POST", `/uploads/${this.sha256}/end`, null, "text/plain", new AbortController().signal);
            }
        }

        get isUnderWay() {
            return this.state === "checking" || this.state === "sending" || this.state === "lost";
        }

        async run() {
            this.controller = new AbortController();
            const { signal } = this.controller;
            try {
                if (!this.sha256) await this.check(signal);
                if (!signal.aborted) await this.send(signal);
            } catch (error) {
                if (signal.aborted) return;
                // What is not the server's word is the browser's, which cannot read the file any more.
                this.show("refused", error instanceof Refused ? error.message : say.changed);
            }
        }

        /** Makes the file's digest, by which the server knows it. */
        async check(signal) {
            const hash = new Sha256();
            for (let at = 0; at < this.file.size && !signal.aborted; at += CHUNK) {
                hash.update(new Uint8Array(await this.file.slice(at, at + CHUNK).arrayBuffer()));
                this.offset = Math.min(at + CHUNK, this.file.size);
                this.show("checking", filled(say.checking, Math.floor((this.offset / this.file.size) * 100)));
            }
            this.offset = 0;
            if (signal.aborted) return;
            this.sha256 = hash.hex();
            remember(this.sha256, this.file.name);
        }

        /** Sends what the server does not have, however often the line breaks. */
        async send(signal) {
            let failed = 0;
            let begun = false;
            this.meter = { at: performance.now(), from: null, rate: 0 };
            while (!signal.aborted) {
                const answer = begun ? await this.sendPart(signal) : await this.begin(signal);
                if (signal.aborted) return;
                if (answer && answer.status < 300) {
                    [failed, begun] = [0, true];
                    this.offset = answer.body.offset_bytes;
                    if (answer.body.is_stored) return this.stored();
                    this.showSending(this.offset);
                    continue;
                }
                // Where it is, is the server's to say.
                const code = answer && answer.body.code;
                begun = false;
                if (code === "UPLOAD_OFFSET" || (answer && answer.status === 404 && code === "NOT_FOUND")) {
                    failed += 1;
                    if (failed < PAUSES.length) continue;
                }
                const isBackSoon = !answer || answer.status >= 500 || answer.status === 429 || code === "UPLOAD_BUSY";
                if (answer && answer.status === 401) {
                    this.show("lost", say.signedOut);
                } else if (isBackSoon || code === "UPLOAD_OFFSET") {
                    this.show("lost", filled(say.lost, size(this.offset), size(this.file.size)));
                } else {
                    throw new Refused(answer.body.detail || say.failed);
                }
                await wait(PAUSES[Math.min(failed, PAUSES.length - 1)], signal);
                failed += 1;
                this.meter.from = null;
            }
        }

        begin(signal) {
            const begun = { sha256: this.sha256, size_bytes: this.file.size, signature: this.signature };
            return ask("POST", "/uploads", JSON.stringify(begun), "application/json", signal);
        }

        async sendPart(signal) {
            const from = this.offset;
            const part = await this.file.slice(from, from + PART).arrayBuffer();
            const path = `/uploads/${this.sha256}?offset_bytes=${from}`;
            return ask("PATCH", path, part, "application/octet-stream", signal, (loaded) => {
                if (!signal.aborted) this.showSending(from + Math.min(loaded, part.byteLength));
            });
        }

        showSending(at) {
            const now = performance.now();
            const { meter } = this;
            if (meter.from === null) [meter.from, meter.at] = [at, now];
            const seconds = (now - meter.at) / 1000;
            if (seconds >= 0.5 && at > meter.from) {
                const rate = (at - meter.from) / seconds;
                meter.rate = meter.rate === 0 ? rate : meter.rate * 0.7 + rate * 0.3;
                [meter.from, meter.at] = [at, now];
            }
            const total = this.file.size;
            const percent = Math.floor((at / total) * 100);
            const rest = meter.rate > 0 ? ` · ${size(Math.round(meter.rate))}/${say.seconds} · ${filled(say.left, span((total - at) / meter.rate))}` : "";
            const before = this.offset;
            this.offset = at;
            this.show("sending", `${filled(say.sending, size(at), size(total), percent)}${rest}`);
            this.offset = before;
        }

        stored() {
            this.show("stored", filled(say.stored, size(this.file.size)));
            addToRelease(this);
        }
    }

    const all = [];

    /** One after the other: the line is the same for all. */
    let isBusy = false;
    const goOn = async () => {
        if (isBusy) return;
        isBusy = true;
        for (let next; (next = all.find((upload) => upload.state === "queued" && !upload.isGone)); ) await next.run();
        isBusy = false;
    };

    const signatureOf = async (file, files) => {
        const found = files.find((other) => other.name === `${file.name}.sig`);
        if (!found) return undefined;
        const octets = new Uint8Array(await found.arrayBuffer());
        return btoa(String.fromCharCode(...octets.subarray(0, 4096)));
    };

    const take = async (list) => {
        const files = Array.from(list);
        for (const file of files) {
            const isSignature = file.name.endsWith(".sig") && files.some((other) => `${other.name}.sig` === file.name);
            const isThere = all.some((other) => !other.isGone && other.state !== "refused" && other.file.name === file.name
                && other.file.size === file.size && other.file.lastModified === file.lastModified);
            if (isSignature || isThere) continue;
            if (file.size === 0) {
                const upload = new Upload(file);
                upload.show("refused", say.empty);
                all.push(upload);
                continue;
            }
            all.push(new Upload(file, await signatureOf(file, files)));
        }
        goOn();
    };

    /** Gives an image that is stored its row among those of the release. */
    const addToRelease = (upload) => {
        document.querySelectorAll(`[data-unfinished="${upload.sha256}"]`).forEach((row) => row.remove());
        const rows = document.getElementById("images");
        const template = document.getElementById("image-row");
        if (!rows || !template || rows.querySelector(`input[name=sha256][value="${upload.sha256}"]`)) return;
        const number = rows.children.length;
        const row = template.content.firstElementChild.cloneNode(true);
        row.querySelector("input[name=sha256]").value = upload.sha256;
        row.querySelector("[data-name-of]").dataset.nameOf = upload.sha256;
        row.querySelector("[data-digest]").textContent = upload.sha256.slice(0, 12);
        row.querySelector("[data-size]").textContent = size(upload.file.size);
        for (const button of row.querySelectorAll("button[name=do]")) button.value = `${button.value}${number}`;
        for (const field of row.querySelectorAll("[id]")) field.id = `${field.id}${number}`;
        for (const label of row.querySelectorAll("label")) label.htmlFor = `${label.htmlFor}${number}`;
        rows.append(row);
        showNames(row);
        document.getElementById("no-images")?.remove();
        document.getElementById("images-table")?.removeAttribute("hidden");
    };

    const input = document.getElementById("files");
    const drop = document.getElementById("drop");
    input.addEventListener("change", () => {
        take(input.files);
        input.value = "";
    });
    for (const name of ["dragenter", "dragover"]) {
        drop.addEventListener(name, (event) => {
            event.preventDefault();
            drop.classList.add("over");
        });
    }
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => {
        event.preventDefault();
        drop.classList.remove("over");
        take(event.dataTransfer.files);
    });
    window.addEventListener("online", () => all.filter((upload) => upload.state === "lost").forEach((upload) => {
        upload.controller.abort();
        upload.show("queued", say.queued);
        // The run that was aborted ends first.
        setTimeout(goOn, 0);
    }));
    window.addEventListener("beforeunload", (event) => {
        if (all.some((upload) => upload.isUnderWay || upload.state === "queued")) event.preventDefault();
    });
})();
