"use strict";

/* The course of a study: reader code, practice with feedback, items, pauses, and the file to send back. */

const byId = (id) => document.getElementById(id);
const study = JSON.parse(byId("study").textContent);
const viewer = new Viewer(byId("viewer"), study);
const practice = study.items.filter((item) => item.token);
const items = study.items.filter((item) => !item.token);
const pairs = study.mode === "pairs";
const ANSWERS = pairs
  ? [["left", "Left", "L"], ["right", "Right", "R"]]
  : [["real", "Real", "R"], ["generated", "Synthetic", "S"]];
const SAVE_EVERY = 1000; // milliseconds between notes of the time spent
const FORMAT = "medisingan-reader-study-answers-1";

let state = null; // what is kept for this reader
let item = null; // what is on view
let answered = false; // a practice item whose feedback is on view
let running = false; // whether the time of the item counts
let last = 0;
let saved = 0;
if (pairs) viewer.chosen = 0; // two images of every channel at once would be small

/* Kept in the browser under the study and the reader, so that a closed page goes on where it was. */

const storageKey = (reader) => `reader-study/${study.study}/${reader}`;

function stored(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function recall(reader) {
  try {
    const found = JSON.parse(stored(storageKey(reader)));
    return found && found.study === study.study && Array.isArray(found.answers) ? found : null;
  } catch {
    return null;
  }
}

function keep() {
  try {
    localStorage.setItem(storageKey(state.reader), JSON.stringify(state));
    localStorage.setItem(`reader-study/${study.study}`, state.reader);
    return true;
  } catch {
    return false;
  }
}

const canKeep = (() => {
  try {
    localStorage.setItem("reader-study", "1");
    return true;
  } catch {
    return false;
  }
})();

/* Pages */

function turnTo(page) {
  for (const name of ["start", "task", "between", "done"]) byId(name).hidden = name !== page;
  window.scrollTo(0, 0);
}

const announce = (text) => (byId("announcer").textContent = text);
const many = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

function start() {
  byId("task-text").textContent = pairs
    ? "You will see two images at a time. One of them is real, the other is synthetic: made by a computer. Say which one is real, and how sure you are."
    : "You will see one image at a time. About half of them are real, the others are synthetic: made by a computer. Say which it is, and how sure you are.";
  const what = pairs ? "pair" : "image";
  const facts = [
    `${many(items.length, what)}${practice.length ? `, after ${practice.length} for practice, where you are told what was right` : ""}.`,
    study.timeLimit
      ? `Each ${what} is shown for ${study.timeLimit} seconds. You can still answer when it is gone.`
      : "There is no time limit. The time you take is noted.",
    "An answer stands once you have gone on to the next.",
    canKeep
      ? "You can pause at any time, and close the page: your answers stay in this browser until you come back."
      : "This browser keeps nothing for this page: please do it in one go, or save the answers so far when you pause.",
    "At the end you get a file to send back. Nothing is sent by itself.",
  ];
  byId("facts").replaceChildren(...facts.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  const keys = [
    ...ANSWERS.map(([, label, key]) => [key, pairs ? `${label} one is real` : label]),
    ["1 to 5", "how sure: 1 a guess, 5 certain"],
    ["Enter", "next"],
    ["P", "pause"],
    ...(study.groups.length > 1 && items.some((one) => one.groups.length > 1) ? [["C", "next channel"]] : []),
    ["+ − 0", "zoom in, zoom out, all as at first; also the wheel, or two fingers"],
    ["← ↑ → ↓", "move the image when zoomed; also by dragging"],
    ["W Q", "narrower and wider window"],
    ["E A", "higher and lower level; both also by dragging with Shift or the right button"],
    ["D", "dragging: move, or window and level"],
    ["I", "smooth or square pixels"],
  ];
  for (const list of document.querySelectorAll(".keys")) {
    list.replaceChildren(
      ...keys.flatMap(([key, text]) => {
        const term = document.createElement("dt");
        term.append(Object.assign(document.createElement("kbd"), { textContent: key }));
        return [term, Object.assign(document.createElement("dd"), { textContent: text })];
      }),
    );
  }
  // Whoever has finished is not asked to go on: the next one at this computer is somebody else.
  const before = stored(`reader-study/${study.study}`) || "";
  byId("reader").value = (recall(before)?.answers.length ?? items.length) < items.length ? before : "";
  noteResume();
  turnTo("start");
  byId("reader").focus();
}

function noteResume() {
  const found = recall(byId("reader").value.trim());
  byId("begin").textContent = found ? "Go on" : "Begin";
  byId("resume-text").textContent = found ? `${found.answers.length} of ${items.length} are answered.` : "";
}

function begin(event) {
  event.preventDefault();
  const reader = byId("reader").value.trim();
  const years = byId("experience");
  let error = "";
  if (!/^[A-Za-z0-9._-]{1,40}$/.test(reader)) error = "Please enter your reader code: letters, digits, dot, dash, underscore.";
  else if (!years.validity.valid) error = "Years of experience must be a number from 0 to 80, or left empty.";
  byId("form-error").textContent = error;
  if (error) return (years.validity.valid ? byId("reader") : years).focus();
  state = recall(reader) || {
    study: study.study,
    reader,
    started: new Date().toISOString(),
    practised: 0,
    told: false,
    answers: [],
    elapsed: 0,
  };
  if (years.value !== "") state.experience = Number(years.value);
  keep();
  advance();
}

/* Shows what comes next. */
function advance() {
  if (state.practised < practice.length) return show(practice[state.practised]);
  if (practice.length && !state.told) {
    state.told = true;
    keep();
    return between("The practice is over", `From here on you are not told what was right. There are ${many(items.length, pairs ? "pair" : "image")}.`, false);
  }
  if (state.answers.length < items.length) return show(items[state.answers.length]);
  finish();
}

function show(next) {
  item = next;
  answered = false;
  turnTo("task");
  const training = Boolean(item.token);
  const at = training ? state.practised : state.answers.length;
  const total = training ? practice.length : items.length;
  byId("count").textContent = `${training ? "Practice" : pairs ? "Pair" : "Image"} ${at + 1} of ${total}`;
  byId("progress").max = total;
  byId("progress").value = at;
  byId("answer-form").reset();
  for (const input of byId("answer-form").elements) input.disabled = false;
  byId("feedback").textContent = "";
  byId("next").firstChild.textContent = "Next ";
  byId("save-part").hidden = training;
  checkForm();
  if (study.timeLimit && state.elapsed >= study.timeLimit * 1000) timeUp();
  else viewer.show(item, pairs ? ["Left", "Right"] : []);
  listChannels();
  byId("viewer").setAttribute("aria-label", `${byId("count").textContent}. Arrow keys move it when zoomed`);
  byId("viewer").focus({ preventScroll: true });
  announce(byId("count").textContent);
  last = performance.now();
  running = true;
  tellTime();
}

function checkForm() {
  const form = new FormData(byId("answer-form"));
  byId("next").disabled = !answered && !(form.has("answer") && form.has("confidence"));
}

function next(event) {
  event.preventDefault();
  if (byId("next").disabled || byId("task").hidden) return;
  if (answered) {
    state.practised += 1;
    state.elapsed = 0;
    keep();
    return advance();
  }
  tick();
  running = false;
  const form = new FormData(byId("answer-form"));
  const answer = form.get("answer");
  if (item.token) return tellTruth(answer);
  state.answers.push({
    item: item.id,
    answer,
    confidence: Number(form.get("confidence")),
    milliseconds: Math.round(state.elapsed),
    time_up: Boolean(study.timeLimit) && state.elapsed >= study.timeLimit * 1000,
  });
  state.elapsed = 0;
  if (state.answers.length === items.length) state.ended = new Date().toISOString();
  keep();
  advance();
}

function tellTruth(answer) {
  const right = token(item.id, answer) === item.token;
  const [, truth] = ANSWERS.find(([name]) => token(item.id, name) === item.token);
  const was = pairs ? `The ${truth.toLowerCase()} one is real.` : `This image is ${truth.toLowerCase()}.`;
  byId("feedback").textContent = `${right ? "Correct." : "Not correct."} ${was}`;
  for (const input of byId("answer-form").querySelectorAll("input, #pause")) input.disabled = true;
  answered = true;
  byId("next").firstChild.textContent = "Go on ";
  checkForm();
  byId("next").focus();
}

/* FNV-1a of 32 bits, as in page.py. */
function token(id, answer) {
  let value = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(`${study.study}:${id}:${answer}`)) value = Math.imul(value ^ byte, 0x01000193) >>> 0;
  return value.toString(16).padStart(8, "0");
}

/* Time: only what is spent with the image in sight counts. */

function tick() {
  if (!running) return;
  const now = performance.now();
  state.elapsed += now - last;
  last = now;
  if (now - saved > SAVE_EVERY) {
    saved = now;
    keep();
  }
  tellTime();
}

function tellTime() {
  byId("time-left").hidden = !study.timeLimit;
  if (!study.timeLimit) return;
  const left = study.timeLimit - state.elapsed / 1000;
  byId("time-left").textContent = left > 0 ? `${Math.ceil(left)} s left` : "time is up";
  if (left <= 0 && viewer.images.length) timeUp();
}

function timeUp() {
  viewer.cover("The time for this one is up. You can still answer.");
  announce("The time is up. You can still answer.");
}

function pause() {
  if (byId("task").hidden || answered) return;
  tick();
  running = false;
  keep();
  between("Paused", canKeep ? "Your answers are kept in this browser. You can close the page." : "This browser keeps nothing: leave the page open, or save the answers so far.", !item.token);
}

function between(title, text, canSave) {
  viewer.cover("");
  byId("between-title").textContent = title;
  byId("between-text").textContent = text;
  byId("save-part").hidden = !canSave || !state.answers.length;
  turnTo("between");
  byId("go-on").focus();
  announce(`${title}. ${text}`);
}

/* The file to send back */

function download() {
  const { study: id, reader, experience, started, ended, answers } = state;
  const finished = answers.length === items.length;
  const content = {
    format: FORMAT,
    study: id,
    mode: study.mode,
    reader,
    experience_years: experience ?? null,
    started,
    ended: ended ?? null,
    finished,
    items: items.length,
    answers,
  };
  const link = document.createElement("a");
  link.download = `answers-${id}-${reader}.json`;
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1) + "\n"], { type: "application/json" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  announce(`Saved as ${link.download}`);
}

function finish() {
  running = false;
  viewer.cover("");
  byId("done-text").textContent = `Your answers are in a file named answers-${study.study}-${state.reader}.json, among your downloads. Please send it to the person who gave you this page.`;
  turnTo("done");
  byId("done-title").focus();
  announce("That was the last one. The file of your answers is being saved.");
  download();
}
