"use strict";

/* Buttons, channels and keys; everything is set going at the end. */

function choice(name, value, label, key, onChoose) {
  const holder = document.createElement("label");
  holder.className = "choice";
  const input = Object.assign(document.createElement("input"), { type: "radio", name, value });
  const text = document.createElement("span");
  text.append(label);
  if (key) text.append(" ", Object.assign(document.createElement("kbd"), { textContent: key }));
  holder.append(input, text);
  input.addEventListener("change", onChoose);
  return holder;
}

function listChannels() {
  const shown = item.groups.length > 1 ? [null, ...item.groups] : [];
  byId("channels").hidden = !shown.length;
  byId("channels").querySelectorAll(".choice").forEach((old) => old.remove());
  for (const group of shown) {
    const label = group === null ? "All" : study.groups[group].name;
    const one = choice("channel", String(group), label, "", () => viewer.chooseGroup(group));
    one.querySelector("input").checked = group === viewer.chosen;
    byId("channels").append(one);
  }
}

function nextChannel() {
  const inputs = [...byId("channels").querySelectorAll("input")];
  if (!inputs.length) return;
  inputs[(inputs.findIndex((input) => input.checked) + 1) % inputs.length].click();
}

function press(name, value) {
  const input = byId("answer-form").querySelector(`input[name="${name}"][value="${value}"]`);
  if (!input.disabled) input.click();
}

const KEYS = {
  ...Object.fromEntries(ANSWERS.map(([value, , key]) => [key.toLowerCase(), () => press("answer", value)])),
  ...Object.fromEntries([1, 2, 3, 4, 5].map((value) => [String(value), () => press("confidence", value)])),
  p: pause,
  c: nextChannel,
  "+": () => viewer.zoomBy(1.25),
  "=": () => viewer.zoomBy(1.25),
  "-": () => viewer.zoomBy(0.8),
  0: () => viewer.reset(),
  w: () => viewer.setWindow(viewer.wider - 0.25, viewer.higher),
  q: () => viewer.setWindow(viewer.wider + 0.25, viewer.higher),
  e: () => viewer.setWindow(viewer.wider, viewer.higher + 0.05),
  a: () => viewer.setWindow(viewer.wider, viewer.higher - 0.05),
  d: () => byId("drag").click(),
  i: () => byId("smooth").click(),
};
const ARROWS = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };

function onKey(event) {
  if (byId("task").hidden || event.ctrlKey || event.altKey || event.metaKey) return;
  const target = event.target;
  if (event.key === "Enter") {
    if (target.tagName !== "BUTTON") next(event);
    return;
  }
  if (event.key in ARROWS) {
    // Radio buttons and sliders have their own use for arrows.
    if (target.tagName === "INPUT") return;
    event.preventDefault();
    return viewer.pan(...ARROWS[event.key]);
  }
  const key = event.key.toLowerCase();
  if (Object.hasOwn(KEYS, key) && (!event.repeat || "+-=wqea".includes(key))) {
    event.preventDefault();
    KEYS[key]();
  }
}

viewer.onChange = () => {
  byId("zoom-text").textContent = `${Math.round(viewer.zoom * 100)} %`;
  byId("window").value = viewer.wider;
  byId("window").setAttribute("aria-valuetext", `${Math.round(100 * 2 ** viewer.wider)} %`);
  byId("level").value = viewer.higher;
  byId("level").setAttribute("aria-valuetext", `${Math.round(100 * viewer.higher)} %`);
};

byId("question").textContent = pairs ? "Which one is real?" : "Is this image real?";
byId("answers").append(...ANSWERS.map(([value, label, key]) => choice("answer", value, label, key, checkForm)));
byId("confidences").append(...[1, 2, 3, 4, 5].map((value) => choice("confidence", value, String(value), "", checkForm)));
byId("reader").addEventListener("input", noteResume);
byId("reader-form").addEventListener("submit", begin);
byId("answer-form").addEventListener("submit", next);
byId("pause").addEventListener("click", pause);
byId("go-on").addEventListener("click", advance);
byId("save-part").addEventListener("click", download);
byId("download").addEventListener("click", download);
byId("zoom-in").addEventListener("click", () => viewer.zoomBy(1.25));
byId("zoom-out").addEventListener("click", () => viewer.zoomBy(0.8));
byId("fit").addEventListener("click", () => viewer.fit());
byId("reset").addEventListener("click", () => viewer.reset());
byId("window").addEventListener("input", (event) => viewer.setWindow(Number(event.target.value), viewer.higher));
byId("level").addEventListener("input", (event) => viewer.setWindow(viewer.wider, Number(event.target.value)));
byId("smooth").addEventListener("click", () => {
  viewer.setSmooth(!viewer.smooth);
  byId("smooth").textContent = viewer.smooth ? "Pixels: smooth" : "Pixels: square";
});
byId("drag").addEventListener("click", () => {
  viewer.dragWindows = !viewer.dragWindows;
  byId("drag").textContent = viewer.dragWindows ? "Drag: window" : "Drag: move";
});
document.addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", () => document.hidden && pause());
window.addEventListener("pagehide", () => state && running && (tick(), keep()));
window.addEventListener("beforeunload", (event) => {
  if (!canKeep && state && state.answers.length && state.answers.length < items.length) event.preventDefault();
});
setInterval(tick, 200);
start();
