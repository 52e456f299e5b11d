// The slider over the past of an entity: it writes the moment it stands at into the form's field, and asks for it.
const form = document.querySelector("form.as-of");
const slider = form.querySelector("[data-slider]");
const field = form.querySelector("[name=at]");
const micros = (text) => Date.parse(text) * 1000 + Number(/\.\d{3}(\d{3})Z$/.exec(text)?.[1] ?? 0);
const first = micros(form.dataset.first);
const last = micros(form.dataset.last);

// To the microsecond: two events may lie in one millisecond.
function moment(place) {
  const at = Math.round(first + (last - first) * place);
  const whole = new Date(Math.floor(at / 1000)).toISOString();
  return `${whole.slice(0, -1)}${String(at % 1000).padStart(3, "0")}Z`;
}
function place() {
  const text = field.value || form.dataset.here;
  const at = text ? micros(text) : last;
  if (Number.isNaN(at) || last <= first) return 1;
  return Math.min(Math.max((at - first) / (last - first), 0), 1);
}
function follow() {
  slider.value = place();
}
slider.disabled = last <= first;
slider.addEventListener("input", () => {
  field.value = Number(slider.value) >= 1 ? "" : moment(Number(slider.value));
  delete form.dataset.here;
});
slider.addEventListener("change", () => form.dispatchEvent(new CustomEvent("as-of")));
field.addEventListener("change", follow);
// The way back leads over moments of which the form knows nothing.
addEventListener("popstate", () => location.reload());
follow();
