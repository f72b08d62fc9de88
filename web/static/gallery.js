// The wall: scrolls without end while the page stays as light as at its beginning, goes by keyboard, opens photographs.
//
// Only a few pages of tiles are in the document. Those scrolled past are taken out, and a spacer of their height stands
// for them; they are asked for again when they come back into view. What is remembered of a page is its cursor and how
// many tiles it has.

import { ask, onReturn } from "./connection.js";
import { fitPicture, wireFaces } from "./faces.js";

const MOST_PAGES = 5;
const AHEAD_PX = 1600;
const TALLEST_PX = 10_000_000; // browsers end somewhat above 30 million pixels

const wall = document.getElementById("wall");
const end = document.getElementById("wall-end");
const toTop = document.getElementById("to-top");
if (wall) start();
wireFilters();

function start() {
  // pages[first] to pages[last] are in the document; next is the cursor behind the last page that is known
  const pages = [{ cursor: wall.dataset.after, count: wall.children.length }];
  let first = 0;
  let last = 0;
  let next = wall.dataset.next;
  let more = wall.dataset.more === "yes";
  let forgotten = wall.dataset.first !== "yes";
  let busy = false;
  const above = spacer();
  const below = spacer();
  const blanks = [];
  wall.prepend(above);
  wall.append(below);
  markPage(0, [...wall.querySelectorAll(".tile")]);
  for (const tile of wall.querySelectorAll(".tile a")) tile.tabIndex = -1;
  wall.querySelector(".tile a")?.setAttribute("tabindex", "0");

  function spacer() {
    const item = document.createElement("li");
    item.className = "spacer";
    item.setAttribute("aria-hidden", "true");
    item.hidden = true;
    return item;
  }

  function markPage(number, tiles) {
    pages[number].count = tiles.length;
    for (const tile of tiles) tile.dataset.page = String(number);
  }

  const columns = () => getComputedStyle(wall).gridTemplateColumns.split(" ").length;
  function rowHeight() {
    const tile = wall.querySelector(".tile");
    const gap = parseFloat(getComputedStyle(wall).rowGap) || 0;
    return (tile ? tile.getBoundingClientRect().height : 250) + gap;
  }

  // Spacers for what is not in the document; blank cells keep the columns as they would be with it.
  function settle() {
    const across = columns();
    const tall = rowHeight();
    const before = pages.slice(0, first).reduce((sum, page) => sum + page.count, 0);
    const behind = pages.slice(last + 1).reduce((sum, page) => sum + page.count, 0);
    const rows = Math.floor(before / across);
    above.hidden = rows === 0;
    above.style.height = `${Math.max(0, rows * tall)}px`;
    below.hidden = behind === 0;
    below.style.height = `${Math.ceil(behind / across) * tall}px`;
    const wanted = before % across;
    while (blanks.length > wanted) blanks.pop().remove();
    while (blanks.length < wanted) {
      const blank = document.createElement("li");
      blank.setAttribute("aria-hidden", "true");
      above.after(blank);
      blanks.push(blank);
    }
    if (rows * tall > TALLEST_PX) forget(Math.floor(first / 2));
    toTop.hidden = !(forgotten || window.scrollY > 4 * window.innerHeight);
  }

  // So far down that no page could be high enough: the first half is reached again by "To the beginning" alone.
  function forget(count) {
    const height = above.getBoundingClientRect().height;
    pages.splice(0, count);
    first -= count;
    last -= count;
    for (const tile of wall.querySelectorAll(".tile")) tile.dataset.page = String(Number(tile.dataset.page) - count);
    forgotten = true;
    settle();
    window.scrollBy(0, above.getBoundingClientRect().height - height);
  }

  async function load(number) {
    const page = pages[number];
    const url = new URL(wall.dataset.tiles, location.href);
    if (page.cursor) url.searchParams.set("after", page.cursor);
    const answer = await ask(url);
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const holder = document.createElement("template");
    holder.innerHTML = await answer.text();
    const tiles = [...holder.content.querySelectorAll(".tile")];
    markPage(number, tiles);
    for (const tile of tiles) tile.firstElementChild.tabIndex = -1;
    return { tiles, next: answer.headers.get("Mien-Next"), more: answer.headers.get("Mien-More") === "yes" };
  }

  async function down() {
    if (last + 1 < pages.length) {
      const { tiles } = await load(last + 1);
      below.before(...tiles);
      last += 1;
    } else if (more && next) {
      pages.push({ cursor: next, count: 0 });
      let found;
      try {
        found = await load(last + 1);
      } catch (error) {
        pages.pop();
        throw error;
      }
      ({ next, more } = { next: found.next ?? next, more: found.more });
      if (found.tiles.length === 0) {
        // what fits lies further on: the empty page is not kept
        pages.pop();
      } else {
        below.before(...found.tiles);
        last += 1;
      }
      if (!more) end.textContent = "That is all.";
    } else return false;
    while (last - first >= MOST_PAGES) takeOut(first++);
    settle();
    return true;
  }

  async function up() {
    if (first === 0) return false;
    const { tiles } = await load(first - 1);
    const anchor = blanks.length ? blanks[0] : above;
    anchor.after(...tiles);
    first -= 1;
    while (last - first >= MOST_PAGES) takeOut(last--);
    settle();
    return true;
  }

  function takeOut(number) {
    const had = document.activeElement?.closest?.(".tile");
    for (const tile of wall.querySelectorAll(`.tile[data-page="${number}"]`)) {
      if (tile === had) wall.focus({ preventScroll: true });
      tile.remove();
    }
  }

  async function fill() {
    if (busy) return;
    busy = true;
    wall.setAttribute("aria-busy", "true");
    try {
      for (let steps = 0; steps < 400; steps += 1) {
        const tiles = wall.querySelectorAll(".tile");
        const top = tiles[0]?.getBoundingClientRect().top ?? 0;
        const bottom = tiles[tiles.length - 1]?.getBoundingClientRect().bottom ?? 0;
        let moved = false;
        if (top > -AHEAD_PX / 2 && first > 0) moved = await up();
        else if (bottom < window.innerHeight + AHEAD_PX) moved = await down();
        if (!moved) break;
      }
    } catch {
      end.textContent = "More photographs could not be brought; this goes on by itself.";
      setTimeout(fill, 3000);
    } finally {
      busy = false;
      wall.removeAttribute("aria-busy");
    }
  }

  let due = false;
  const soon = () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => { due = false; toTop.hidden = !(forgotten || window.scrollY > 4 * window.innerHeight); fill(); });
  };
  window.addEventListener("scroll", soon, { passive: true });
  window.addEventListener("resize", () => { settle(); soon(); });
  onReturn(fill);
  new IntersectionObserver(soon, { rootMargin: `${AHEAD_PX}px` }).observe(end);
  toTop.addEventListener("click", () => {
    if (forgotten) {
      const url = new URL(location.href);
      url.searchParams.delete("after");
      location.assign(url);
    } else window.scrollTo({ top: 0 });
  });
  fill();

  wireKeys(() => columns(), fill);
  wireViewer(fill);
}

function tilesNow() {
  return [...wall.querySelectorAll(".tile")];
}

function focusTile(tile) {
  if (!tile) return;
  wall.querySelector('.tile a[tabindex="0"]')?.setAttribute("tabindex", "-1");
  const link = tile.firstElementChild;
  link.tabIndex = 0;
  link.focus({ preventScroll: true });
  tile.scrollIntoView({ block: "nearest" });
}

function wireKeys(columns, fill) {
  wall.addEventListener("keydown", async (event) => {
    const tile = event.target.closest(".tile");
    if (!tile || event.altKey || event.ctrlKey || event.metaKey) return;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() }[event.key];
    if (step === undefined && event.key !== "Home" && event.key !== "End") return;
    event.preventDefault();
    let tiles = tilesNow();
    let at = tiles.indexOf(tile) + (step ?? 0);
    if (event.key === "Home") at = 0;
    if (event.key === "End") at = tiles.length - 1;
    if (at >= tiles.length || at < 0) {
      await fill();
      tiles = tilesNow();
      at = Math.min(Math.max(tiles.indexOf(tile) + step, 0), tiles.length - 1);
    }
    focusTile(tiles[at]);
  });
}

function wireViewer(fill) {
  const viewer = document.getElementById("viewer");
  const body = document.getElementById("viewer-body");
  const wallUrl = location.href;
  let current = null;
  let asked = 0;

  async function show(tile, push) {
    current = tile;
    const url = tile.firstElementChild.href;
    const turn = (asked += 1);
    let html = "";
    try {
      const answer = await ask(new URL(`${new URL(url).pathname}/part`, location.href));
      if (!answer.ok) throw new Error();
      html = await answer.text();
    } catch {
      if (!viewer.open) location.assign(url);
      return;
    }
    if (turn !== asked) return;
    body.innerHTML = html;
    fitPicture(body);
    wireFaces(body);
    viewer.setAttribute("aria-label", `Photograph ${tile.firstElementChild.title}`);
    if (!viewer.open) viewer.showModal();
    viewer.scrollTop = 0;
    if (push) history.pushState({ viewer: true }, "", url);
    else history.replaceState({ viewer: true }, "", url);
  }

  async function go(step) {
    let tiles = tilesNow();
    let at = tiles.indexOf(current) + step;
    if (at < 0 || at >= tiles.length || !current.isConnected) {
      (current.isConnected ? current : tiles[0])?.scrollIntoView();
      await fill();
      tiles = tilesNow();
      at = tiles.indexOf(current) + step;
    }
    const tile = tiles[at];
    if (!tile) return;
    tile.scrollIntoView({ block: "nearest" });
    await show(tile, false);
  }

  wall.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(tile, true);
  });
  viewer.addEventListener("click", (event) => {
    const button = event.target.closest("[data-go], [data-close]");
    if (!button) return;
    if ("close" in button.dataset) viewer.close();
    else go(Number(button.dataset.go));
  });
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") go(1);
    else if (event.key === "ArrowLeft") go(-1);
    else return;
    event.preventDefault();
  });
  viewer.addEventListener("close", () => {
    body.replaceChildren();
    if (history.state?.viewer) history.back();
    if (current?.isConnected) focusTile(current);
  });
  window.addEventListener("popstate", () => {
    if (location.href === wallUrl) {
      if (viewer.open) viewer.close();
    } else if (!viewer.open) location.reload();
  });
}

function wireFilters() {
  const form = document.getElementById("filters");
  form.addEventListener("change", () => form.requestSubmit());
  // an address holds only what was asked
  form.addEventListener("formdata", (event) => {
    for (const [name, value] of [...event.formData]) if (value === "") event.formData.delete(name);
  });
}
