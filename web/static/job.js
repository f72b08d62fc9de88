// Keeps a job's page fresh: asks every two seconds whether its state has changed, and puts the new part in place.

const POLL_MS = 2000;
const live = document.getElementById("live");
const announce = document.getElementById("announce");
const trouble = document.getElementById("trouble");
let tag = "";
let said = "";

const job = () => document.getElementById("job").dataset;

function say() {
  const { status, done, total, expanding } = job();
  let text = status;
  if (status === "running" && expanding === "no" && Number(total) > 0) {
    text += `, ${Math.floor((10 * Number(done)) / Number(total)) * 10} percent`;
  }
  if (text !== said) {
    said = text;
    announce.textContent = `The job is ${text}.`;
    document.title = document.title.replace(/: [^:]* - Mien$/, `: ${status} - Mien`);
  }
}

function complain(text) {
  trouble.textContent = text;
  trouble.hidden = text === "";
}

// Puts the new part in place without taking the focus or an opened detail away.
function replace(html) {
  const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
  const opened = [...live.querySelectorAll("details[open][id]")].map((element) => element.id);
  const scrolled = live.querySelector(".scroll")?.scrollTop ?? 0;
  live.innerHTML = html;
  opened.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  const scroll = live.querySelector(".scroll");
  if (scroll) scroll.scrollTop = scrolled;
}

async function poll() {
  if (job().final === "yes") return;
  if (!document.hidden) {
    try {
      const answer = await fetch(live.dataset.url, {
        headers: tag ? { "If-None-Match": tag } : {},
        cache: "no-store",
        redirect: "manual",
      });
      if (answer.status === 200) {
        replace(await answer.text());
        tag = answer.headers.get("ETag") ?? "";
        complain("");
        say();
      } else if (answer.status === 404) {
        window.location.assign(live.dataset.start);
        return;
      } else if (answer.status === 304) {
        complain("");
      } else if (answer.type === "opaqueredirect" || answer.status === 401) {
        window.location.reload();
        return;
      } else {
        complain("Mien is not ready just now; this page goes on by itself.");
      }
    } catch {
      complain("Mien does not answer; this page goes on by itself when it does.");
    }
  }
  setTimeout(poll, POLL_MS);
}

said = job().status;
setTimeout(poll, POLL_MS);
