// The start page: look around for a folder, drop photographs, see how long it will take, one photograph at once.

import { ask } from "./connection.js";
import { wireFaces } from "./faces.js";
import { fromDrop, fromInput, nameOfDrop, sizeInWords, sort } from "./files.js";
import { Refused, Upload } from "./upload.js";

const DRAFT = "mien-draft";
const at = (id) => document.getElementById(id);
const form = at("begin");
const { dataset } = form;
const endings = new Set(dataset.endings.split(","));
const count = new Intl.NumberFormat("en").format;

// how long -----------------------------------------------------------------------------------------------------------

async function estimate(images, place) {
  if (!images) {
    place.textContent = "";
    return;
  }
  const url = new URL(dataset.estimate, location.href);
  url.searchParams.set("images", String(images));
  url.searchParams.set("faces", form.elements.faces.value);
  if (form.elements.model) url.searchParams.set("model", form.elements.model.value);
  try {
    const answer = await ask(url);
    if (answer.ok) place.innerHTML = await answer.text();
  } catch {
    // the banner says it
  }
}

// a folder -----------------------------------------------------------------------------------------------------------

const browser = at("browser");
const browserBody = at("browser-body");
const choose = at("choose");
const counted = new Map();
for (const link of document.querySelectorAll(".picks a")) {
  counted.set(link.textContent, link.dataset.images);
  link.addEventListener("click", (event) => {
    event.preventDefault();
    take(link.textContent);
  });
}

function take(path) {
  at("path").value = path;
  at("path").focus();
  tellFolder();
}

function tellFolder() {
  estimate(Number(counted.get(at("path").value)), at("estimate"));
}

async function look(path) {
  const url = new URL(dataset.browse, location.href);
  if (path) url.searchParams.set("path", path);
  const answer = await ask(url);
  browserBody.innerHTML = await answer.text();
  const list = browserBody.querySelector(".folders");
  choose.disabled = !list?.dataset.path;
  choose.value = list?.dataset.path ?? "";
  if (list?.dataset.path) counted.set(list.dataset.path, list.dataset.images);
  browserBody.querySelector("a")?.focus();
}

at("browse").addEventListener("click", () => {
  const path = at("path").value;
  browser.showModal();
  look(path.startsWith("/") ? path : "").catch(() => browser.close());
});
browserBody.addEventListener("click", (event) => {
  const link = event.target.closest("[data-browse]");
  if (!link) return;
  event.preventDefault();
  look(link.dataset.browse).catch(() => {});
});
choose.addEventListener("click", () => {
  browser.close();
  take(choose.value);
});
browser.querySelector("[data-close]").addEventListener("click", () => browser.close());
at("path").addEventListener("change", tellFolder);
form.addEventListener("change", (event) => {
  if (event.target.name === "faces" || event.target.name === "model") tellFolder();
});
tellFolder();

// photographs --------------------------------------------------------------------------------------------------------

const drop = at("drop");
let depth = 0;
let waiting = null;
let upload = null;

const brings = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragenter", (event) => { if (brings(event)) { depth += 1; drop.classList.add("over"); } });
document.addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); if (depth === 0) drop.classList.remove("over"); });
document.addEventListener("dragover", (event) => { if (brings(event)) event.preventDefault(); });
document.addEventListener("drop", async (event) => {
  if (!brings(event)) return;
  event.preventDefault();
  depth = 0;
  drop.classList.remove("over");
  const name = nameOfDrop(event.dataTransfer);
  offer(await fromDrop(event.dataTransfer), name);
});
at("pick-files").addEventListener("click", () => at("files").click());
at("pick-folder").addEventListener("click", () => at("folder-files").click());
for (const id of ["files", "folder-files"]) {
  at(id).addEventListener("change", (event) => {
    const first = event.target.files[0]?.webkitRelativePath ?? "";
    const found = fromInput(event.target);
    event.target.value = "";
    offer(found, first.split("/")[0]);
  });
}

function offer(found, name) {
  if (upload) return;
  const { images, skipped, archive } = sort(found, endings);
  waiting = { images, archive, name };
  at("sending").hidden = false;
  at("look").replaceChildren();
  at("sending-error").hidden = true;
  at("sending-body").hidden = false;
  at("sending-bar").hidden = true;
  at("sending-line").textContent = "";
  at("sending-estimate").textContent = "";
  at("send").hidden = false;
  at("sending-title").textContent = name || "Photographs";
  showSkipped(skipped);
  const bytes = archive ? archive.size : images.reduce((sum, { file }) => sum + file.size, 0);
  if (!archive && images.length === 0) {
    at("sending-words").textContent = "No photograph was among these files.";
    at("send").hidden = true;
  } else if (images.length === 1 && skipped.length === 0 && images[0].file.size <= Number(dataset.mostSingle)) {
    answerAtOnce(images[0].file);
  } else {
    at("sending-words").textContent = archive
      ? `An archive of ${sizeInWords(bytes)}`
      : `${count(images.length)} photographs, ${sizeInWords(bytes)} to copy`;
    if (!archive) estimate(images.length, at("sending-estimate"));
    const draft = earlier();
    if (draft && draft.name === name) at("sending-line").textContent = "An upload of this name was begun before: only what is missing is sent.";
  }
  at("sending").scrollIntoView({ block: "nearest" });
  at("sending-title").focus({ preventScroll: true });
}

function showSkipped(paths) {
  const place = at("skipped");
  place.hidden = paths.length === 0;
  place.querySelector("summary").textContent = `${count(paths.length)} other ${paths.length === 1 ? "file is" : "files are"} left out: no image by name`;
  place.querySelector("ul").replaceChildren(...paths.slice(0, 200).map((path) => {
    const item = document.createElement("li");
    item.textContent = path;
    return item;
  }));
}

function fail(text) {
  at("sending-error").textContent = text;
  at("sending-error").hidden = false;
}

function earlier() {
  try {
    return JSON.parse(localStorage.getItem(DRAFT));
  } catch {
    return null;
  }
}

function remember(draft) {
  try {
    if (draft) localStorage.setItem(DRAFT, JSON.stringify(draft));
    else localStorage.removeItem(DRAFT);
  } catch {
    // then nothing is resumed after the page is closed
  }
}

at("send").addEventListener("click", async () => {
  if (!waiting || upload) return;
  const began = performance.now();
  const { images, archive, name } = waiting;
  const job = { options: { faces: form.elements.faces.value }, ...(form.elements.model ? { model: form.elements.model.value } : {}), metadata: name ? { name } : {} };
  at("send").disabled = true;
  at("sending-bar").hidden = false;
  at("sending-error").hidden = true;
  at("stop").textContent = "Stop";
  upload = new Upload(dataset.jobs, job, (state) => {
    const share = state.totalBytes ? state.bytes / state.totalBytes : 1;
    at("sending-bar").value = share;
    at("sending-words").textContent = archive
      ? `${sizeInWords(state.bytes)} of ${sizeInWords(state.totalBytes)}`
      : `${count(state.files)} of ${count(state.totalFiles)} photographs`;
    const seconds = (performance.now() - began) / 1000;
    const speed = state.bytes / Math.max(seconds, 0.1);
    at("sending-line").textContent = `${sizeInWords(state.bytes)} of ${sizeInWords(state.totalBytes)}, ${sizeInWords(speed)}/s${state.resumed ? `; ${count(state.resumed)} had arrived before` : ""}`;
    if (state.skipped.length) showSkipped(state.skipped);
  });
  try {
    const draft = earlier();
    const known = draft && draft.name === name && !archive ? draft.id : null;
    const id = await upload.run({ images, archive, known, remember: (made) => remember({ id: made, name }) });
    await upload.submit(id);
    remember(null);
    location.assign(`${dataset.page.replace(/\/$/, "")}/jobs/${id}`);
  } catch (error) {
    if (error.name !== "AbortError") {
      fail(error instanceof Refused ? error.message : `The photographs could not be sent (${error.message}).`);
      if (error.code === "unknown_job" || error.code === "not_a_draft") remember(null);
    }
  } finally {
    upload = null;
    at("send").disabled = false;
    at("stop").textContent = "Put aside";
  }
});

at("stop").addEventListener("click", () => {
  if (upload) {
    upload.stop();
    at("sending-line").textContent = "Stopped. What has arrived is kept for a day; drop the same photographs to go on.";
    return;
  }
  waiting = null;
  at("sending").hidden = true;
  at("look").replaceChildren();
});

// one photograph -----------------------------------------------------------------------------------------------------

async function answerAtOnce(file) {
  at("sending-words").textContent = "Looking at this photograph …";
  at("sending-bar").hidden = false;
  at("sending-bar").removeAttribute("value");
  at("send").hidden = true;
  const url = new URL(dataset.look, location.href);
  url.searchParams.set("faces", form.elements.faces.value);
  if (form.elements.model) url.searchParams.set("model", form.elements.model.value);
  try {
    const answer = await ask(url, { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream", Accept: "application/problem+json, application/json" } });
    if (!answer.ok) {
      const problem = await answer.json().catch(() => null);
      throw new Error(problem?.detail ?? "This photograph could not be read.");
    }
    at("look").innerHTML = await answer.text();
    at("sending-body").hidden = true;
    at("sending-title").textContent = file.name;
    wireFaces(at("look"));
    await draw(file);
    at("sending").scrollIntoView({ block: "start" });
  } catch (error) {
    at("sending-words").textContent = "No answer";
    fail(error.message);
  } finally {
    at("sending-bar").value = 0;
    at("sending-bar").hidden = true;
  }
}

async function draw(file) {
  const canvas = at("look-canvas");
  try {
    const picture = await createImageBitmap(file);
    canvas.width = picture.width;
    canvas.height = picture.height;
    canvas.getContext("2d").drawImage(picture, 0, 0);
  } catch {
    // a format that this browser does not show: the boxes stand on an empty sheet
  }
}
