// What was dropped or chosen, as a list of files with their paths, sub-folders kept; and what of it is an image.

const ARCHIVE = /\.(zip|tar|tgz|tar\.gz)$/i;
const HIDDEN = /(^|\/)(\.|__MACOSX(\/|$)|Thumbs\.db$|desktop\.ini$|@eaDir(\/|$))/;

// Files of a drop: [{path, file}]. The list of entries has to be taken before anything is waited for.
export async function fromDrop(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 0) return [...transfer.files].map((file) => ({ path: file.name, file }));
  const found = [];
  // one folder dropped alone is the job's source: its own name is no part of the paths
  const only = entries.length === 1 && entries[0].isDirectory;
  for (const entry of entries) await take(entry, only ? "" : entry.name, found);
  return found;
}

export function fromInput(input) {
  return [...input.files].map((file) => {
    const path = file.webkitRelativePath || file.name;
    return { path: file.webkitRelativePath ? path.slice(path.indexOf("/") + 1) : path, file };
  });
}

export function nameOfDrop(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  return entries.length === 1 ? entries[0].name : "";
}

// Images, the archive if it is one, and the paths of what is neither. Hidden files are passed over in silence.
export function sort(found, endings) {
  const images = [];
  const skipped = [];
  for (const item of found) {
    const dot = item.path.lastIndexOf(".");
    if (HIDDEN.test(item.path)) continue;
    if (dot >= 0 && endings.has(item.path.slice(dot).toLowerCase())) images.push(item);
    else skipped.push(item.path);
  }
  const archive = found.length === 1 && ARCHIVE.test(found[0].path) ? found[0].file : null;
  return { images, skipped: archive ? [] : skipped, archive };
}

async function take(entry, path, found) {
  if (entry.isFile) {
    const file = await new Promise((good, bad) => entry.file(good, bad)).catch(() => null);
    if (file) found.push({ path, file });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((good, bad) => reader.readEntries(good, bad)).catch(() => []);
    if (some.length === 0) return;
    for (const inner of some) await take(inner, path ? `${path}/${inner.name}` : inner.name, found);
  }
}

export function sizeInWords(bytes) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (bytes >= size) return `${(bytes / size).toFixed(bytes < 10 * size ? 1 : 0)} ${unit}`;
  }
  return `${bytes} bytes`;
}
