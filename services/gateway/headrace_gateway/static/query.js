// The query box: completion of what the search language knows, and an error that points at its character.

const ATTRIBUTES = ["status", "experiment", "display_name", "run", "group", "forked_from", "start_time", "end_time", "duration_s", "dataset.name", "dataset.digest", "dataset.context"];
const STATES = ["RUNNING", "FINISHED", "FAILED", "KILLED"];
const SHOWN = 12;
const PLAIN = /^[\w\-./:@]+$/;

/** How the search language calls a key: in backquotes where it has other characters than plain words. */
export function subject(kind, key) {
  return `${kind}.${PLAIN.test(key) ? key : `\`${key}\``}`;
}

export function quoted(text) {
  return `"${text.replace(/[\\"]/g, "\\$&")}"`;
}

/** Offers completions in `list` for `input`; `words` gives what is known of keys now. */
export function complete(input, list, words) {
  let offers = [];
  let at = -1;

  function show(next) {
    offers = next;
    at = -1;
    list.replaceChildren(...offers.map((offer, index) => {
      const item = document.createElement("li");
      item.id = `completion-${index}`;
      item.role = "option";
      item.textContent = offer.text;
      item.addEventListener("pointerdown", (event) => { event.preventDefault(); take(index); });
      return item;
    }));
    list.hidden = !offers.length;
    input.setAttribute("aria-expanded", String(offers.length > 0));
    mark(-1);
  }

  function mark(index) {
    at = index;
    [...list.children].forEach((item, place) => item.setAttribute("aria-selected", String(place === at)));
    list.children[at]?.scrollIntoView({ block: "nearest" });
    if (at >= 0) input.setAttribute("aria-activedescendant", `completion-${at}`);
    else input.removeAttribute("aria-activedescendant");
  }

  function take(index) {
    const offer = offers[index];
    const after = input.value.slice(input.selectionStart);
    input.value = input.value.slice(0, offer.from) + offer.text + after;
    const caret = offer.from + offer.text.length;
    input.setSelectionRange(caret, caret);
    show([]);
    input.dispatchEvent(new Event("input", { bubbles: true }));
    show([]);
  }

  input.addEventListener("input", () => show(offersAt(input.value.slice(0, input.selectionStart), words())));
  input.addEventListener("blur", () => show([]));
  input.addEventListener("keydown", (event) => {
    if (event.key === " " && event.ctrlKey) {
      event.preventDefault();
      return show(offersAt(input.value.slice(0, input.selectionStart), words(), true));
    }
    if (!offers.length) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      mark((at + (event.key === "ArrowDown" ? 1 : -1) + offers.length) % offers.length);
    } else if (event.key === "Tab" || (event.key === "Enter" && at >= 0)) {
      event.preventDefault();
      take(Math.max(at, 0));
    } else if (event.key === "Escape") {
      event.stopPropagation();
      event.preventDefault();
      show([]);
    }
  });
}

/** What may stand where `before` ends: [{ text, from }], the likeliest first. */
export function offersAt(before, words, anything = false) {
  const status = /\bstatus\s*(?:=|!=)\s*("?\w*)$/i.exec(before);
  if (status) {
    const typed = status[1].replace('"', "").toUpperCase();
    return STATES.filter((each) => each.startsWith(typed)).map((each) => ({ text: quoted(each), from: before.length - status[1].length }));
  }
  if (((before.match(/(?<!\\)"/g) ?? []).length % 2) === 1) return []; // inside of a text
  const typed = /[A-Za-z_][\w\-./:@`]*$/.exec(before)?.[0] ?? "";
  if (!typed && !anything) return [];
  const low = typed.toLowerCase();
  const known = [
    ...words.metrics.map((key) => subject("metric", key)),
    ...words.params.map((key) => subject("param", key)),
    ...words.tags.map((key) => subject("tag", key)),
    ...ATTRIBUTES,
    ...["and", "or", "not", "like", "in", "is null"],
  ];
  const starts = known.filter((each) => each.toLowerCase().startsWith(low));
  const holds = known.filter((each) => low.length > 1 && !starts.includes(each) && each.toLowerCase().includes(low));
  const found = [...starts, ...holds].slice(0, SHOWN);
  if (found.length === 1 && found[0] === typed) return [];
  return found.map((text) => ({ text, from: before.length - typed.length }));
}

/** Tells what is wrong with a filter; `place` is the character it points at, from 1, or 0. */
export function explain(notice, text, problem, place) {
  notice.hidden = !problem;
  if (!problem) return;
  notice.querySelector("span").textContent = problem;
  const pointed = notice.querySelector("pre");
  pointed.hidden = !place || !text;
  if (place) pointed.textContent = `${text}\n${" ".repeat(place - 1)}^`;
}
