// Sends files into a draft, several requests at once, and goes on after a lost connection: what the draft's list names
// with the same size has arrived already.

import { lost, reached } from "./connection.js";

const PARALLEL = 4;
const BATCH_FILES = 50;
const BATCH_BYTES = 12e6;
const SLOWEST_MS = 15_000;

export class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? `The server answered with ${status}.`);
    this.code = problem?.code;
  }
}

// One request with progress. A server that is away, busy or limits the pace is asked again; anything else is final.
function send(method, url, body, headers, progress, signal) {
  return new Promise((good, bad) => {
    const request = new XMLHttpRequest();
    request.open(method, url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => progress(event.loaded);
    request.onload = () => {
      let answer = null;
      try {
        answer = JSON.parse(request.responseText);
      } catch {
        // no JSON: a server in between
      }
      if (request.status < 300) good(answer);
      else if ([408, 429, 502, 503, 504].includes(request.status)) {
        const wait = Number(request.getResponseHeader("Retry-After")) * 1000;
        bad(Object.assign(new Error("again"), { again: true, wait }));
      } else bad(new Refused(request.status, answer));
    };
    request.onerror = () => bad(Object.assign(new Error("lost"), { again: true, away: true }));
    signal.addEventListener("abort", () => { request.abort(); bad(new DOMException("put aside", "AbortError")); });
    request.send(body);
  });
}

export class Upload {
  // `job`: the body of POST /api/v1/jobs without its source. `onChange(state)` is called as things go on.
  constructor(jobsUrl, job, onChange) {
    this.jobsUrl = jobsUrl;
    this.job = job;
    this.onChange = onChange;
    this.control = new AbortController();
    this.state = { files: 0, totalFiles: 0, bytes: 0, totalBytes: 0, skipped: [], resumed: 0 };
  }

  stop() {
    this.control.abort();
  }

  async persist(method, url, body, headers = {}, progress = () => {}) {
    for (let wait = 800; ; wait = Math.min(wait * 1.7, SLOWEST_MS)) {
      try {
        const answer = await send(method, url, body, headers, progress, this.control.signal);
        reached();
        return answer;
      } catch (error) {
        progress(0);
        if (!error.again) throw error;
        if (error.away) lost("The connection is lost. Sending goes on by itself when it is back.");
        await new Promise((done) => setTimeout(done, Math.max(error.wait || 0, wait)));
        if (this.control.signal.aborted) throw new DOMException("put aside", "AbortError");
      }
    }
  }

  async draft(known) {
    if (known) {
      const answer = await fetch(`${this.jobsUrl}/${known}`, { cache: "no-store" }).catch(() => null);
      if (answer?.ok && (await answer.json()).status === "draft") return known;
    }
    const body = JSON.stringify({ source: { type: "upload" }, ...this.job });
    const made = await this.persist("POST", this.jobsUrl, body, {
      "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID(),
    });
    return made.id;
  }

  async arrived(id) {
    const there = new Map();
    let after = "";
    for (;;) {
      const url = `${this.jobsUrl}/${id}/images${after ? `?after=${encodeURIComponent(after)}` : ""}`;
      const page = await this.persist("GET", url, null);
      for (const item of page.items) there.set(item.file, item.bytes);
      if (!page.has_more) return there;
      after = page.next;
    }
  }

  // Sends images ([{path, file}]) or one archive; gives the draft's id. `known`: an earlier draft to go on with.
  async run({ images, archive, known, remember }) {
    const id = await this.draft(known);
    remember(id);
    const { state } = this;
    if (archive) {
      state.totalBytes = archive.size;
      const kind = /zip$/i.test(archive.name) ? "application/zip" : /tar$/i.test(archive.name) ? "application/x-tar" : "application/gzip";
      const answer = await this.persist("POST", `${this.jobsUrl}/${id}/images`, archive, { "Content-Type": kind }, (sent) => {
        state.bytes = Math.min(sent, archive.size);
        this.onChange(state);
      });
      state.files = state.totalFiles = answer.total_files;
      state.skipped = answer.skipped_files.map((item) => item.file);
      this.onChange(state);
      return id;
    }
    const there = known === id ? await this.arrived(id) : new Map();
    const missing = images.filter(({ path, file }) => there.get(path) !== file.size);
    state.totalFiles = images.length;
    state.totalBytes = images.reduce((sum, { file }) => sum + file.size, 0);
    state.resumed = state.files = images.length - missing.length;
    const settled = { bytes: state.totalBytes - missing.reduce((sum, { file }) => sum + file.size, 0) };
    const flying = new Map();
    const show = () => {
      let bytes = settled.bytes;
      for (const sent of flying.values()) bytes += sent;
      state.bytes = Math.min(bytes, state.totalBytes);
      this.onChange(state);
    };
    show();
    const batches = batched(missing);
    let next = 0;
    const sender = async () => {
      while (next < batches.length) {
        const batch = batches[next++];
        const size = batch.reduce((sum, { file }) => sum + file.size, 0);
        await this.sendBatch(id, batch, (sent) => { flying.set(batch, Math.min(sent, size)); show(); });
        flying.delete(batch);
        settled.bytes += size;
        state.files += batch.length;
        show();
      }
    };
    await Promise.all(Array.from({ length: PARALLEL }, sender));
    return id;
  }

  async sendBatch(id, batch, progress) {
    if (batch.length === 1) {
      const [{ path, file }] = batch;
      const url = `${this.jobsUrl}/${id}/images?path=${encodeURIComponent(path)}`;
      await this.persist("PUT", url, file, { "Content-Type": "application/octet-stream" }, progress);
      return;
    }
    const form = new FormData();
    for (const { path, file } of batch) form.append("image", file, path);
    await this.persist("POST", `${this.jobsUrl}/${id}/images`, form, {}, progress);
  }

  async submit(id) {
    return this.persist("POST", `${this.jobsUrl}/${id}/submit`, null);
  }
}

// Small files together, large ones and those whose names a form would change alone.
function batched(items) {
  const batches = [];
  let batch = [];
  let size = 0;
  for (const item of items) {
    if (item.file.size > BATCH_BYTES / 3 || /["\\\r\n]/.test(item.path)) {
      batches.push([item]);
      continue;
    }
    if (batch.length === BATCH_FILES || size + item.file.size > BATCH_BYTES) {
      batches.push(batch);
      batch = [];
      size = 0;
    }
    batch.push(item);
    size += item.file.size;
  }
  if (batch.length) batches.push(batch);
  return batches;
}
