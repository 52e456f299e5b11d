// The table of runs. What it shows stands in the address: filter, experiment, order, columns, group.
import { number } from "./plot.js";
import { complete, explain, quoted, subject } from "./query.js";
import { Grid } from "./grid.js";
import { Sparks } from "./sparks.js";

const ROW = 37;
const WAIT_MS = 350;
const SPARK = 72; // pixels that a line takes beside its value
const MOST_COMPARED = 2000;
const WIDTHS = { status: 96, experiment: 130, group: 130, start_time: 120, end_time: 120, duration_s: 96, run: 290, by: 120, commit: 120 };
const TITLES = { start_time: "started", end_time: "ended", duration_s: "took" };
const TONES = { finished: "good", failed: "bad", running: "busy", killed: "warn" };
const $ = (selector, root = document) => root.querySelector(selector);

const box = $("#runs");
const form = $("#search");
const attributes = JSON.parse(box.dataset.attributes);
const unsorted = new Set(JSON.parse(box.dataset.unsorted));
const usual = JSON.parse(box.dataset.defaults);
let words = { params: [], metrics: [], tags: [], frequent: [], runs: 0 };
let asked = 0;
let uncounted = false; // what was asked for has no answer yet: another column or order must not pass for it

// --- what the address says ---------------------------------------------------------------------------------------------
const view = read();
function read() {
  const query = new URLSearchParams(location.search);
  return {
    filter: query.get("filter") ?? "",
    experiment: query.get("experiment") ?? "",
    order: query.get("order") ?? "",
    group: query.get("group") ?? "",
    columns: query.has("column") ? query.getAll("column").filter(Boolean) : null,
  };
}
function search({ columns = false, order = true } = {}) {
  const query = new URLSearchParams();
  for (const name of ["filter", "experiment", ...(order ? ["order"] : [])]) if (view[name]) query.set(name, view[name]);
  if (columns) for (const each of shown()) query.append("column", each);
  return query;
}
function write() {
  const query = search();
  if (view.group) query.set("group", view.group);
  if (view.columns) for (const each of view.columns.length ? view.columns : [""]) query.append("column", each);
  const text = query.toString();
  history.replaceState(null, "", text ? `/runs?${text}` : "/runs");
  $("[data-charts-link]").href = `/runs/charts?${chosenQuery(search())}`;
}
function shown() {
  return view.columns ?? [...usual, ...words.frequent.map((key) => `metric.${key}.last`)];
}

// --- rows --------------------------------------------------------------------------------------------------------------
const chosen = new Set();
let all = false;
let lastChosen = -1;
const sparks = new Sparks();
const grid = new Grid(box, {
  height: ROW,
  load: async (from, count) => {
    const query = search({ columns: true });
    query.set("from", from);
    query.set("count", count);
    const answer = await (await fetch(`/runs/rows?${query}`)).json();
    if (answer.problem) tell(answer);
    return answer.rows ?? [];
  },
  draw: drawRow,
});

function drawRow(row, index) {
  const line = document.createElement("tr");
  const columns = shown();
  if (!row) {
    line.className = "waiting";
    for (let place = 0; place < columns.length + 2; place += 1) line.insertCell();
    return line;
  }
  line.dataset.run = row.id;
  const tick = document.createElement("input");
  Object.assign(tick, { type: "checkbox", name: "run", value: row.id, checked: all || chosen.has(row.id), tabIndex: -1 });
  tick.setAttribute("aria-label", `Choose ${row.name}`);
  tick.addEventListener("click", (event) => choose(index, tick.checked, event.shiftKey));
  line.insertCell().append(tick);
  const link = document.createElement("a");
  Object.assign(link, { className: "row-link", href: `/runs/${row.id}`, textContent: row.name, title: row.name });
  const name = line.insertCell();
  name.className = "name";
  name.append(link);
  const drawn = sparked(columns);
  columns.forEach((column, place) => {
    const cell = line.insertCell();
    drawCell(cell, column, row.cells[place]);
    if (place === drawn && row.cells[place] !== null) cell.prepend(sparks.make(box, parts(column)[1], row.id, row.cells[place]));
  });
  return line;
}

/** Place of the column that shows how its metric went: the last one of a metric's last value; -1 for none. */
function sparked(columns) {
  return columns.findLastIndex((each) => parts(each)[2] === "last");
}

function drawCell(cell, column, value) {
  if (isNumber(column)) cell.className = "num";
  if (value === null || value === undefined) {
    cell.textContent = "–";
    cell.classList.add("muted");
  } else if (column === "status") {
    const chip = document.createElement("span");
    chip.className = `chip ${TONES[value] ?? "idle"}`;
    chip.textContent = value;
    cell.append(chip);
  } else if (column === "start_time" || column === "end_time") {
    const time = document.createElement("time");
    const iso = new Date(value).toISOString();
    time.dateTime = iso;
    time.title = `${iso.slice(0, 19).replace("T", " ")} UTC`;
    time.dataset.ago = "";
    time.textContent = ago((Date.now() - value) / 1000);
    cell.append(time);
  } else {
    cell.textContent = typeof value === "number" ? number(value) : value;
    cell.title = String(value);
  }
}

function ago(seconds) {
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) if (seconds >= length) return `${Math.floor(seconds / length)} ${unit} ago`;
  return `${Math.max(Math.floor(seconds), 0)} s ago`;
}

function isNumber(column) {
  return column.startsWith("metric.") || column === "duration_s";
}
/** [kind, key, part] of a column. */
function parts(column) {
  const dot = column.indexOf(".");
  if (dot < 0) return ["attribute", column, ""];
  const kind = column.slice(0, dot);
  const key = column.slice(dot + 1);
  const part = kind === "metric" && /^(.+)\.(last|min|max)$/.exec(key);
  return part ? [kind, part[1], part[2]] : [kind, key, kind === "metric" ? "last" : ""];
}
function subjectOf(column) {
  const [kind, key, part] = parts(column);
  if (kind === "attribute") return unsorted.has(key) ? "" : key;
  return subject(kind, key) + (kind === "metric" ? `.${part}` : "");
}

// --- head: titles that sort ----------------------------------------------------------------------------------------------
function drawHead() {
  const line = document.createElement("tr");
  const widths = [36, 230];
  const every = document.createElement("th");
  every.innerHTML = '<span class="hidden">Choose</span>';
  line.append(every);
  line.append(titled("Run", "display_name", false));
  for (const column of shown()) {
    const [kind, key, part] = parts(column);
    const text = kind === "attribute" ? TITLES[key] ?? key : part && part !== "last" ? `${key} ${part}` : key;
    line.append(titled(text, subjectOf(column), isNumber(column), kind));
    const spark = column === shown()[sparked(shown())] ? SPARK : 0;
    widths.push(WIDTHS[column] ?? Math.min(Math.max(text.length * 8 + 34, 104 + spark), 240));
  }
  const columns = document.createElement("colgroup");
  for (const width of widths) {
    const each = document.createElement("col");
    each.style.width = `${width}px`;
    columns.append(each);
  }
  grid.table.querySelector("colgroup")?.remove();
  grid.table.prepend(columns);
  grid.table.style.minWidth = `${widths.reduce((sum, each) => sum + each, 0)}px`;
  grid.head.replaceChildren(line);
}

function titled(text, by, numeric, kind = "attribute") {
  const head = document.createElement("th");
  if (numeric) head.className = "num";
  head.scope = "col";
  if (!by) {
    head.textContent = text;
    return head;
  }
  const now = view.order === by ? "ascending" : view.order === `${by} desc` ? "descending" : "none";
  head.setAttribute("aria-sort", now);
  const button = document.createElement("button");
  button.type = "button";
  button.className = "sorting";
  button.title = `${kind === "attribute" ? "" : `${kind} `}${text}: sort`;
  button.textContent = text + { ascending: " ↑", descending: " ↓", none: "" }[now];
  button.addEventListener("click", () => {
    const next = numeric ? { none: `${by} desc`, descending: by, ascending: "" } : { none: by, ascending: `${by} desc`, descending: "" };
    view.order = next[now];
    show({ same: true });
  });
  head.append(button);
  return head;
}

// --- groups --------------------------------------------------------------------------------------------------------------
async function drawGroups() {
  const mine = ++asked;
  const query = search({ columns: true, order: false });
  query.set("group", view.group);
  const answer = await (await fetch(`/runs/groups?${query}`)).json();
  if (mine !== asked) return;
  if (answer.problem) return tell(answer);
  const table = document.createElement("table");
  table.className = "rows groups";
  const head = table.createTHead().insertRow();
  for (const text of [view.group, "runs", ...answer.columns.map((each) => parts(each).slice(1).join(" ").replace(/ (last)?$/, ""))]) {
    const cell = document.createElement("th");
    cell.textContent = text;
    cell.className = text === view.group ? "" : "num";
    head.append(cell);
  }
  const body = table.createTBody();
  for (const group of answer.groups) {
    const line = body.insertRow();
    const link = document.createElement("a");
    link.className = "row-link";
    link.textContent = group.value ?? "without";
    const condition = group.value === null ? `${answer.by} is null` : `${answer.by} = ${quoted(group.value)}`;
    const narrowed = search();
    narrowed.set("filter", view.filter ? `(${view.filter}) and ${condition}` : condition);
    for (const each of view.columns ?? []) narrowed.append("column", each);
    link.href = `/runs?${narrowed}`;
    line.insertCell().append(link);
    const count = line.insertCell();
    count.className = "num";
    count.textContent = number(group.runs);
    group.stats.forEach(([known, mean, std]) => {
      const cell = line.insertCell();
      cell.className = "num";
      cell.textContent = known ? number(mean) : "–";
      if (known > 1) {
        const spread = document.createElement("span");
        spread.className = "muted";
        spread.textContent = ` ± ${typeof std === "number" ? Number(std.toPrecision(3)) : std}`;
        cell.append(spread);
      }
      cell.title = `${known} of ${group.runs} runs`;
    });
  }
  box.replaceChildren(table);
  if (answer.more) {
    const more = document.createElement("p");
    more.className = "muted more";
    more.textContent = "There are more groups: narrow the filter.";
    box.append(more);
  }
}

// --- choice --------------------------------------------------------------------------------------------------------------
function choose(index, on, range = false) {
  const from = range && lastChosen >= 0 ? Math.min(lastChosen, index) : index;
  const to = range && lastChosen >= 0 ? Math.max(lastChosen, index) : index;
  if (all && !on) { all = false; chosen.clear(); }
  for (let place = from; place <= to; place += 1) {
    const row = grid.rows[place];
    if (!row) continue;
    if (on) chosen.add(row.id); else chosen.delete(row.id);
  }
  lastChosen = index;
  showChoice();
}
function showChoice() {
  const count = all ? words.runs : chosen.size;
  for (const each of box.querySelectorAll("input[name=run]")) each.checked = all || chosen.has(each.value);
  const compare = $("[data-compare]");
  compare.disabled = count < 2;
  compare.textContent = count ? `Compare ${number(count)}` : "Compare";
  for (const each of document.querySelectorAll('[data-do="tag"], [data-do="delete"]')) each.disabled = !count;
  $('[data-do="none"]').hidden = !count;
  $("[data-chosen]").hidden = count > 0;
  $("[data-charts-link]").textContent = count ? `Charts of ${number(count)}` : "Charts of all";
  $("[data-charts-link]").href = `/runs/charts?${chosenQuery(search())}`;
}
function chosenQuery(query) {
  if (all || !chosen.size) return query;
  return `run=${[...chosen].join(",")}`;
}
$("[data-compare]").addEventListener("click", () => {
  if (all && words.runs > MOST_COMPARED) return tell({ problem: `Compare at most ${MOST_COMPARED} runs: narrow the filter.`, place: 0 });
  location.assign(`/runs/compare?${chosenQuery(search())}`);
});
$("#choice").addEventListener("click", (event) => {
  const what = event.target.dataset.do;
  if (what === "all" || what === "none") {
    all = what === "all";
    chosen.clear();
    showChoice();
  } else if (what) {
    const dialog = $(`#do-${what}`);
    const fields = dialog.querySelector("form").elements;
    fields.run.value = all ? "" : [...chosen].join(",");
    fields.all.value = all ? "yes" : "";
    fields.filter.value = all ? view.filter : "";
    fields.experiment.value = all ? view.experiment : "";
    fields.back.value = new URL(location.href).searchParams.toString();
    dialog.querySelector("[data-number]").textContent = `${number(all ? words.runs : chosen.size)} run${(all ? words.runs : chosen.size) === 1 ? "" : "s"}`;
    dialog.showModal();
  }
});
for (const each of document.querySelectorAll("dialog [data-close]")) each.addEventListener("click", () => each.closest("dialog").close());
box.addEventListener("headrace:move", (event) => {
  if (!view.group) grid.move(event.detail);
});
box.addEventListener("headrace:choose", () => {
  const row = grid.rows[grid.at];
  if (row) choose(grid.at, !(all || chosen.has(row.id)));
});

// --- columns -------------------------------------------------------------------------------------------------------------
const dialog = $("#columns");
$("#pick").addEventListener("click", () => { drawPicker(); dialog.showModal(); dialog.querySelector("input").focus(); });
dialog.querySelector("input").addEventListener("input", drawPicker);
$("#columns-default").addEventListener("click", () => { view.columns = null; drawPicker(); show({ same: true }); });
function drawPicker() {
  const wanted = dialog.querySelector("input[type=search]").value.toLowerCase();
  const list = dialog.querySelector(".columns-list");
  const top = list.scrollTop;
  const now = new Set(shown());
  const kinds = [
    ["Attributes", attributes.map((key) => [TITLES[key] ?? key, [[key, ""]]])],
    ["Metrics", words.metrics.map((key) => [key, ["last", "min", "max"].map((part) => [`metric.${key}.${part}`, part])])],
    ["Parameters", words.params.map((key) => [key, [[`param.${key}`, ""]]])],
    ["Tags", words.tags.map((key) => [key, [[`tag.${key}`, ""]]])],
  ];
  list.replaceChildren();
  for (const [title, keys] of kinds) {
    const found = keys.filter(([key]) => key.toLowerCase().includes(wanted)).slice(0, 300);
    if (!found.length) continue;
    const head = document.createElement("h3");
    head.textContent = title;
    list.append(head);
    for (const [key, columns] of found) {
      const line = document.createElement("div");
      line.className = "column-line";
      const name = document.createElement("span");
      name.textContent = key;
      for (const [column, part] of columns) {
        const label = document.createElement("label");
        const tick = document.createElement("input");
        Object.assign(tick, { type: "checkbox", value: column, checked: now.has(column) });
        tick.setAttribute("aria-label", `${key} ${part}`.trim());
        tick.addEventListener("change", () => {
          view.columns = tick.checked ? [...shown(), column] : shown().filter((each) => each !== column);
          show({ same: true });
        });
        label.append(tick, part || key);
        line.append(label);
      }
      if (columns.length > 1) line.prepend(name);
      list.append(line);
    }
  }
  list.scrollTop = top;
}

// --- showing -------------------------------------------------------------------------------------------------------------
function tell({ problem = "", place = 0 } = {}) {
  explain($("#problem"), view.filter, problem, place);
}
async function countRuns() {
  const answer = await (await fetch(`/runs/keys?${search({ order: false })}`)).json();
  return answer;
}
async function show({ same = false } = {}) {
  const mine = ++asked;
  write();
  if (!same) uncounted = true;
  if (uncounted) {
    const answer = await countRuns();
    if (mine !== asked) return;
    uncounted = Boolean(answer.problem);
    tell(answer);
    if (answer.problem) {
      if (!words.runs) box.hidden = $("#choice").hidden = true;
      return;
    }
    words = answer;
    drawGroupChoice();
    all = false;
  }
  $("#count").textContent = `${number(words.runs)}`;
  const none = !words.runs;
  box.hidden = none;
  $("#choice").hidden = none || Boolean(view.group);
  $("#nothing").hidden = !none;
  const narrowed = view.filter || view.experiment ? "match" : "any";
  for (const each of document.querySelectorAll("#nothing > div")) each.hidden = each.dataset.none !== narrowed;
  showChoice();
  if (view.group) return drawGroups();
  if (!box.contains(grid.table)) box.replaceChildren(grid.table);
  drawHead();
  grid.reset(words.runs);
}
function drawGroupChoice() {
  const select = form.elements.group;
  const columns = [...["status", "experiment", "group"], ...words.params.map((key) => `param.${key}`), ...words.tags.map((key) => `tag.${key}`)];
  if (view.group && !columns.includes(view.group)) columns.push(view.group);
  select.replaceChildren(new Option("none", ""), ...columns.map((each) => new Option(each, each)));
  select.value = view.group;
}
let typing = 0;
function changed() {
  clearTimeout(typing);
  Object.assign(view, { filter: form.elements.filter.value.trim(), experiment: form.elements.experiment.value, group: form.elements.group.value });
  show();
}
form.addEventListener("submit", (event) => { event.preventDefault(); changed(); });
form.elements.experiment.addEventListener("change", changed);
form.elements.group.addEventListener("change", changed);
form.elements.filter.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(changed, WAIT_MS); });
$("#link").addEventListener("click", async (event) => {
  await navigator.clipboard.writeText(location.href);
  event.target.textContent = "copied";
  setTimeout(() => { event.target.textContent = "copy link"; }, 1200);
});
box.addEventListener("refresh", async () => {
  const mine = asked;
  const answer = await countRuns();
  if (mine !== asked || answer.problem) return;
  const first = !words.runs && answer.runs;
  words = answer;
  $("#count").textContent = number(words.runs);
  if (first) return show();
  if (view.group) return drawGroups();
  grid.refresh(words.runs);
});
complete(form.elements.filter, $("#completions"), () => words);
drawGroupChoice();
show();
