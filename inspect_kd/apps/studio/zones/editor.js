/* The editor as a whole: what it shows, its buttons, and its events to and answers from the server. */
const root = element.querySelector('.zones');
const part = selector => root.querySelector(selector);
const canvas = () => part('.zones-canvas');
const TEXTS = JSON.parse(root.dataset.texts), LOW = Number(root.dataset.low), HIGH = Number(root.dataset.high);
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, key) => values[key]);
const MAX_FILE = 400000, CHECK_AFTER_MS = 250;

const render = () => {
  // Beside the drawing, so that a message does not shift the picture under the mouse.
  [['.zones-message', model.frame === null], ['.zones-note', model.frame !== null]].forEach(([selector, isPlace]) => {
    const line = part(selector), text = isPlace ? model.message : '';
    if (line.textContent !== text) line.textContent = text;
    line.classList.toggle('bad', model.isBad);
  });
  part('.empty').hidden = model.frame !== null;
  part('.zones-bench').hidden = model.frame === null;
  if (!model.frame) return;
  renderDrawing();
  renderList();
  const others = model.zones.length - visible().length;
  part('.zones-others').textContent = others ? fill(TEXTS.others, {count: others}) : '';
  part('.zones-labels').textContent = model.labels;
  part('.zones-about').textContent = model.about;
  part('.zones-where').textContent = model.spoken;
  part('.zones-commands').textContent = model.commands;
  renderCheck();
  part('[data-do=close]').disabled = !(model.draft?.length >= 3);
  part('[data-do=undo]').disabled = !model.past.length;
  part('[data-do=redo]').disabled = !model.future.length;
};
const renderCheck = () => {
  const line = part('.zones-check');
  line.textContent = model.check.line;
  line.classList.toggle('bad', model.check.faulty);
};
const say = (message, isBad = false) => { Object.assign(model, {message, isBad}); render(); };

const drawing = () => ({
  run: model.run, category: model.category, revision: String(model.revision),
  zones: JSON.stringify(model.zones.map(({name, polygon, tolerance, category}) => ({
    name, polygon, ...(tolerance === null ? {ignore: true} : {tolerance}), ...(category === null ? {} : {category}),
  }))),
});
let waiting = null;
const sendCheck = () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => model.run && trigger('check', drawing()), CHECK_AFTER_MS);
};
const sendFinished = event => model.draft?.length ? say(TEXTS.unfinished, true) : trigger(event, drawing());

const open = answer => {
  const isNewRun = model.run !== answer.run;
  const {run, category, categories, frame, picture, about, labels, commands} = answer;
  if (!isNewRun && model.category === category && String(model.frame) === String(frame)) return;  // chosen again
  Object.assign(model, {run, category, categories, frame, picture, about, labels, commands});
  Object.assign(model, {draft: null, selected: null, corner: null, crosshair: false, cursor: frame.map(side => Math.round(side / 2))});
  if (isNewRun) Object.assign(model, {zones: withIds(answer.zones), past: [], future: []});
  Object.assign(model, {spoken: '', check: {line: '', faulty: false}});
  changed();
};
const save = (name, text) => {
  const anchor = htmlElement('a', {href: URL.createObjectURL(new Blob([text], {type: 'application/yaml'})), download: name});
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 10000);
};
// Leaving a dropdown by Tab chooses its value a second time.
const isShown = ({run, category}) => model.frame !== null && model.run === run && ['', model.category].includes(category);
const ANSWERS = {
  opening: answer => { if (!isShown(answer)) say(answer.line); },
  opened: open,
  closed: answer => { model.frame = null; model.run = ''; say(answer.line, true); },
  refused: answer => say(answer.line, true),
  making: () => say(''),
  saved: answer => { say(''); save(answer.name, answer.text); },
  loaded: answer => {
    change(() => { model.zones = withIds(answer.zones); model.draft = model.selected = model.corner = null; });
    model.spoken = fill(TEXTS.loaded, {file: answer.name});
    render();
  },
  checked: answer => showCheck(answer, false),
  faulty: answer => showCheck(answer, true),
};
const showCheck = (answer, faulty) => {
  if (answer.revision !== String(model.revision)) return;  // an answer to an earlier drawing
  model.check = {line: answer.line, faulty};
  renderCheck();
};
const receive = found => {
  if (!found) return;
  const answer = JSON.parse(found.dataset.answer);
  ANSWERS[answer.kind]?.(answer);
};

const fileInput = part('input[type=file]');
const DO = {
  new: () => { beginDraft(); canvas().focus({preventScroll: true}); },
  close: closeDraft, undo, redo,
  save: () => sendFinished('save'),
  make: () => sendFinished('make'),
  load: () => fileInput.click(),
};
fileInput.addEventListener('change', async () => {
  const [file] = fileInput.files;
  if (file && file.size > MAX_FILE) say(TEXTS.tooLong, true);
  else if (file) trigger('load', {run: model.run, name: file.name, text: await file.text()});
  fileInput.value = '';
});
root.addEventListener('click', event => {
  const button = event.target.closest('[data-do]');
  if (button && !button.disabled) DO[button.dataset.do]();
});
root.addEventListener('keydown', event => {
  const key = event.key.toLowerCase(), isTyped = event.target.matches('input[type=text], input[type=number]');
  if (!(event.ctrlKey || event.metaKey) || event.altKey || isTyped || !['z', 'y'].includes(key)) return;
  event.preventDefault();
  if (key === 'y' || event.shiftKey) redo(); else undo();
});
canvas().addEventListener('pointerdown', onPointerDown);
canvas().addEventListener('pointermove', onPointerMove);
canvas().addEventListener('pointerup', onPointerUp);
canvas().addEventListener('pointercancel', onPointerUp);
canvas().addEventListener('keydown', onCanvasKey);
const list = part('.zones-list');
list.addEventListener('focusin', onListFocus);
list.addEventListener('focusout', onListBlur);
list.addEventListener('input', onListInput);
list.addEventListener('change', onListChange);
list.addEventListener('click', onListClick);
list.addEventListener('keydown', onListKey);
// Corners and lines keep their size on the screen.
new ResizeObserver(() => { if (model.frame && !drag) renderDrawing(); }).observe(canvas());
window.studioZones = {receive};
render();
