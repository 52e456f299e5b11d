// Live updates. The server sends each event of the platform once (/live). An element with data-live="NAME" is refreshed
// when an event's stream contains NAME: htmx gets its "refresh" trigger, at most once in data-every milliseconds.
// A page that is not looked at holds no connection: browsers allow only six to a site.

const EVERY_MS = 700;
const ROWS = 200;

export function follow(light) {
  let source = null;
  const last = new Map();
  const waiting = new Map();
  const streams = new Map(); // element -> streams since its last refresh; null among them stands for any

  function refresh(element, stream) {
    if (!streams.has(element)) streams.set(element, new Set());
    streams.get(element).add(stream);
    const every = Number(element.dataset.every ?? EVERY_MS);
    if (waiting.has(element)) return;
    const due = Math.max((last.get(element) ?? 0) + every - performance.now(), 0);
    waiting.set(element, setTimeout(() => {
      waiting.delete(element);
      last.set(element, performance.now());
      const detail = { streams: [...streams.get(element)] };
      streams.delete(element);
      element.dispatchEvent(new CustomEvent("refresh", { detail }));
    }, due));
  }

  function touched(stream) {
    for (const element of document.querySelectorAll("[data-live], [data-live-charts]")) {
      if (stream === null || stream.includes(element.dataset.live ?? element.dataset.liveCharts)) refresh(element, stream);
    }
  }

  function prepend(html) {
    const body = document.querySelector("[data-prepend]");
    const search = document.querySelector("input[name=q]");
    if (!body || search?.value) return;
    const template = document.createElement("template");
    template.innerHTML = html; // from our own server, escaped there
    const row = template.content.querySelector("tr");
    if (!row || body.querySelector(`[data-event="${CSS.escape(row.dataset.event)}"]`)) return;
    row.classList.add("new");
    body.closest("#entries")?.querySelector(".empty")?.remove();
    body.prepend(row);
    while (body.rows.length > Number(body.dataset.prepend || ROWS)) body.lastElementChild.remove();
  }

  function beat(area) {
    for (const stage of document.querySelectorAll(`.stage[data-area="${CSS.escape(area)}"]`)) {
      stage.classList.remove("beat");
      void stage.offsetWidth;
      stage.classList.add("beat");
    }
  }

  function show(state, text) {
    light.dataset.state = state;
    light.textContent = text;
  }

  function open() {
    if (source) return;
    source = new EventSource("/live");
    let missed = false;
    source.addEventListener("open", () => {
      show("on", "live");
      if (missed) touched(null);
      missed = false;
    });
    source.addEventListener("error", () => {
      missed = true;
      show("lost", "reconnecting");
    });
    source.addEventListener("lost", () => touched(null));
    source.addEventListener("entry", (message) => {
      const event = JSON.parse(message.data);
      prepend(event.html);
      beat(event.area);
      touched(event.stream);
    });
  }

  function close() {
    source?.close();
    source = null;
    show("off", "not live");
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return close();
    open();
    touched(null);
  });
  addEventListener("pagehide", close);
  if (!document.hidden) open();
}
