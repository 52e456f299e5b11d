// What every page does: keyboard, appearance, times that stay right, live updates. No framework, no build.
import { follow } from "./live.js";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// --- times -----------------------------------------------------------------------------------------------------------
function ago(seconds) {
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= length) return `${Math.floor(seconds / length)} ${unit} ago`;
  }
  return `${Math.max(Math.floor(seconds), 0)} s ago`;
}
function refreshTimes() {
  const now = Date.now();
  for (const each of $$("time[data-ago]")) {
    const text = ago((now - Date.parse(each.dateTime)) / 1000);
    if (each.textContent !== text) each.textContent = text;
  }
}
setInterval(refreshTimes, 5000);

// --- appearance ------------------------------------------------------------------------------------------------------
const order = ["system", "light", "dark"];
function theme() {
  return document.documentElement.dataset.theme ?? "system";
}
function setTheme(next) {
  if (next === "system") {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem("theme");
  } else {
    document.documentElement.dataset.theme = next;
    localStorage.setItem("theme", next);
  }
  showTheme();
  document.dispatchEvent(new CustomEvent("headrace:theme"));
}
function showTheme() {
  const button = $("#theme");
  if (button) button.textContent = { system: "auto", light: "light", dark: "dark" }[theme()];
}
function nextTheme() {
  setTheme(order[(order.indexOf(theme()) + 1) % order.length]);
}
$("#theme")?.addEventListener("click", nextTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new CustomEvent("headrace:theme")));
showTheme();

// --- keyboard --------------------------------------------------------------------------------------------------------
const help = $("#help");
$("#help-open")?.addEventListener("click", () => help.showModal());
let going = 0;
const rows = () => $$("main table.rows tbody tr").filter((row) => $(".row-link", row));
function move(step) {
  const grid = $(".grid");
  if (grid) {
    grid.dispatchEvent(new CustomEvent("headrace:move", { detail: step }));
    if (!$("table.groups", grid)) return;
  }
  const all = rows();
  if (!all.length) return;
  const at = all.findIndex((row) => row.classList.contains("at"));
  all[at]?.classList.remove("at");
  const next = all[Math.min(Math.max(at + step, 0), all.length - 1)];
  next.classList.add("at");
  $(".row-link", next).focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input:not([type=checkbox]), textarea, select");
  if (event.key === "Escape" && typing) return typing.blur();
  if (typing || document.querySelector("dialog[open]")) return;
  if (event.timeStamp - going < 1500) {
    going = 0;
    const link = $(`nav a[data-key="${CSS.escape(event.key)}"]`);
    if (link) {
      event.preventDefault();
      location.assign(link.href);
      return;
    }
  }
  const actions = {
    g: () => { going = event.timeStamp; },
    "/": () => $("[data-search]")?.focus(),
    "?": () => help?.showModal(),
    t: nextTheme,
    j: () => move(1),
    k: () => move(-1),
    x: () => {
      if ($(".grid")) return $(".grid").dispatchEvent(new CustomEvent("headrace:choose"));
      const box = $("tr.at input[type=checkbox]");
      if (box) { box.checked = !box.checked; box.dispatchEvent(new Event("change", { bubbles: true })); }
    },
  };
  if (actions[event.key]) {
    event.preventDefault();
    actions[event.key]();
  }
});

// --- small things ----------------------------------------------------------------------------------------------------
document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    event.preventDefault();
    await navigator.clipboard.writeText(copy.dataset.copy);
    copy.textContent = "copied";
    setTimeout(() => { copy.textContent = "copy"; }, 1200);
  }
  if (event.target.closest("[data-back]") && history.length > 1) {
    event.preventDefault();
    history.back();
  }
});
// One submission a form: its command id makes a second one harmless, this makes it invisible.
document.addEventListener("submit", (event) => {
  if (event.target.method === "post") {
    for (const button of $$("button", event.target)) setTimeout(() => { button.disabled = true; });
  }
});
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
document.addEventListener("htmx:after:swap", () => { refreshTimes(); });

// A page about a service that does not answer asks again until it does.
if ($("[data-retry]")) {
  setInterval(async () => {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
    if (answer?.ok) location.reload();
  }, 3000);
}

if ($("#live")) follow($("#live"));
