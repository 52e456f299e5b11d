// The page of a run: previews of files, as text, JSON, a table or a diff. Nothing in a file is ever taken for markup.

const HEAD = 256 * 1024; // bytes of a file that are shown
const ROWS = 500;

async function load(box) {
  if (box.dataset.loaded) return;
  box.dataset.loaded = "yes";
  if (box.dataset.as === "page") return void box.replaceChildren(page(box.dataset.preview));
  box.textContent = "loading …";
  const answer = await fetch(`${box.dataset.preview}?head=${HEAD}`).catch(() => null);
  if (!answer?.ok) {
    box.textContent = "It can not be shown here.";
    return;
  }
  const text = await answer.text();
  const cut = Number(box.dataset.size) > HEAD;
  box.replaceChildren(({ table, diff, json }[box.dataset.as] ?? plain)(text, box.dataset.preview));
  if (!cut) return;
  const note = document.createElement("p");
  note.className = "muted";
  note.textContent = "The first 256 KiB; open the file for all of it.";
  box.prepend(note);
}

/** A page that a run stored, with its scripts, in a frame without any right: not even to know where it is. */
function page(address) {
  const frame = document.createElement("iframe");
  frame.className = "framed";
  frame.title = decodeURIComponent(address.split("/artifacts/")[1]);
  frame.setAttribute("sandbox", "allow-scripts");
  frame.referrerPolicy = "no-referrer";
  frame.src = `${address}?framed`;
  return frame;
}

function plain(text) {
  const pre = document.createElement("pre");
  pre.textContent = text;
  return pre;
}

function json(text) {
  let found;
  try { found = JSON.parse(text); } catch { return plain(text); }
  // Tables of MLflow's log_table and of pandas' orient="split".
  if (Array.isArray(found?.columns) && Array.isArray(found.data) && found.data.every(Array.isArray)) {
    const told = (each) => (each !== null && typeof each === "object" ? JSON.stringify(each) : String(each ?? ""));
    return tabular([found.columns.map(told), ...found.data.map((row) => row.map(told))]);
  }
  return plain(JSON.stringify(found, null, 2));
}

function diff(text) {
  const pre = document.createElement("pre");
  pre.className = "diff";
  for (const line of text.split("\n")) {
    const part = document.createElement("span");
    part.className = line.startsWith("@@") ? "hunk" : /^(\+\+\+|---|diff |index )/.test(line) ? "file" : line.startsWith("+") ? "added" : line.startsWith("-") ? "removed" : "";
    part.textContent = `${line}\n`;
    pre.append(part);
  }
  return pre;
}

function table(text, address) {
  return tabular(cells(text, address.endsWith(".tsv") || (!text.includes(",") && text.includes("\t")) ? "\t" : ","));
}

function tabular(rows) {
  const made = document.createElement("table");
  made.className = "rows plain";
  const head = made.createTHead().insertRow();
  const isNumber = (each) => each !== undefined && each !== "" && Number.isFinite(Number(each));
  (rows[0] ?? []).forEach((each, place) => {
    const cell = document.createElement("th");
    cell.textContent = each;
    if (isNumber(rows[1]?.[place])) cell.className = "num";
    head.append(cell);
  });
  const body = made.createTBody();
  for (const row of rows.slice(1, ROWS + 1)) {
    const line = body.insertRow();
    for (const each of row) {
      const cell = line.insertCell();
      cell.textContent = each;
      if (isNumber(each)) cell.className = "num";
    }
  }
  const scroll = document.createElement("div");
  scroll.className = "scroll tall";
  scroll.tabIndex = 0;
  scroll.append(made);
  return scroll;
}

/** Rows of comma-separated values (RFC 4180). */
export function cells(text, separator = ",") {
  const rows = [[]];
  let cell = "";
  let inside = false;
  for (let at = 0; at < text.length; at += 1) {
    const each = text[at];
    if (inside) {
      if (each !== '"') cell += each;
      else if (text[at + 1] === '"') { cell += '"'; at += 1; }
      else inside = false;
    } else if (each === '"' && !cell) inside = true;
    else if (each === separator) { rows.at(-1).push(cell); cell = ""; }
    else if (each === "\n") { rows.at(-1).push(cell.replace(/\r$/, "")); cell = ""; rows.push([]); }
    else cell += each;
  }
  if (cell || rows.at(-1).length) rows.at(-1).push(cell);
  return rows.filter((row) => row.length);
}

async function part(box) {
  if (box.dataset.loaded) return;
  box.dataset.loaded = "yes";
  const answer = await fetch(box.dataset.part, { headers: { "HX-Request": "true" } }).catch(() => null);
  if (answer?.ok) box.innerHTML = await answer.text(); // from our own server, escaped there
  else box.textContent = "It does not answer now.";
}

function opened(details) {
  const box = details.querySelector("[data-preview], [data-part]");
  if (box?.dataset.preview) load(box);
  else if (box) part(box);
}
document.addEventListener("toggle", (event) => { if (event.target.open) opened(event.target); }, true);
for (const each of document.querySelectorAll("details.preview[open]")) opened(each);

// What the run writes, while it writes: the end of it first, then what comes. A page nobody looks at holds no connection.
const OUTPUT_MOST = 4_000_000; // characters that stay on the page
const AGAIN_MS = 5000;
const CONTROLS = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])/g;

/** Text as a terminal leaves it behind: without control sequences; a line that is written over is its last form. */
export function left(text) {
  return text.replace(CONTROLS, "").replace(/\r+\n/g, "\n").replace(/[^\n]*\r(?=[^\n])/g, "");
}

function watch(box) {
  let source = null;
  let length = 0;
  let place = "";

  function show({ chunks }) {
    const atEnd = box.hidden || box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    box.hidden = false;
    document.querySelector("[data-no-output]").hidden = true;
    for (const chunk of chunks) {
      if (chunk.left_out_bytes) box.append(span(`… ${chunk.left_out_bytes} bytes left out …\n`, "muted"));
      const part = span(left(chunk.text), chunk.stream);
      part.title = new Date(Number(chunk.time_us) / 1000).toISOString();
      length += part.textContent.length;
      box.append(part);
    }
    while (length > OUTPUT_MOST) { length -= box.firstChild.textContent.length; box.firstChild.remove(); }
    if (atEnd) box.scrollTop = box.scrollHeight;
  }
  const changed = () => document.querySelector("#summary")?.dispatchEvent(new CustomEvent("refresh"));

  function open() {
    if (source || box.dataset.ended) return;
    source = new EventSource(place ? `${box.dataset.output}?after=${place}` : box.dataset.output);
    source.addEventListener("output", (message) => {
      place = message.lastEventId;
      show(JSON.parse(message.data));
    });
    source.addEventListener("error", () => { // refused: browsers try again by themselves only where a connection broke
      if (source?.readyState !== EventSource.CLOSED) return;
      close();
      setTimeout(() => { if (!document.hidden) open(); }, AGAIN_MS);
    });
    source.addEventListener("end", () => { box.dataset.ended = "yes"; close(); changed(); });
  }
  function close() {
    source?.close();
    source = null;
  }
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  if (!document.hidden) open();
}

function span(text, kind) {
  const made = document.createElement("span");
  made.className = kind;
  made.textContent = text;
  return made;
}
for (const each of document.querySelectorAll("[data-output]")) watch(each);

// Which part of the page is in sight.
const tabs = new Map([...document.querySelectorAll(".tabs a")].map((each) => [each.hash.slice(1), each]));
const sight = new IntersectionObserver(() => {
  const line = innerHeight / 3;
  const here = [...tabs.keys()].map((id) => document.getElementById(id)).filter((each) => each && each.getBoundingClientRect().top < line).at(-1);
  for (const [id, tab] of tabs) if (id === here?.id) tab.setAttribute("aria-current", "true"); else tab.removeAttribute("aria-current");
}, { threshold: [0, 0.25, 0.5, 0.75, 1] });
for (const id of tabs.keys()) { const each = document.getElementById(id); if (each) sight.observe(each); }
