/* What is drawn, and what can be undone. Kept beside the page's elements, since Gradio may render those again at any time. */
const MAX_PAST = 500, MAX_CORNERS = 10000;
const model = window.studioZonesModel ??= {
  run: '', category: '', categories: [], frame: null, picture: '', about: '', labels: '', commands: '',
  zones: [], draft: null, selected: null, corner: null, cursor: [0, 0], crosshair: false, before: null,
  past: [], future: [], nextId: 1, revision: 0, check: {line: '', faulty: false}, message: '', isBad: false, spoken: '',
};
const changed = () => { model.revision += 1; model.message = ''; render(); sendCheck(); };

const snapshot = () => JSON.stringify([model.zones, model.draft, model.selected]);
const remember = former => {
  model.past.push(former);
  if (model.past.length > MAX_PAST) model.past.shift();
  model.future = [];
};
const change = action => { remember(snapshot()); action(); changed(); };
const restore = text => {
  [model.zones, model.draft, model.selected] = JSON.parse(text);
  model.corner = null;
  // A zone of another category cannot be selected: it is not on the picture.
  if (!visible().some(zone => zone.id === model.selected)) model.selected = null;
};
const step = (from, to, words) => {
  if (!from.length) return;
  to.push(snapshot());
  restore(from.pop());
  model.before = null;
  model.spoken = words;
  changed();
};
const undo = () => step(model.past, model.future, TEXTS.undone);
const redo = () => step(model.future, model.past, TEXTS.redone);

const visible = () => model.zones.filter(zone => zone.category === null || zone.category === model.category);
const selected = () => model.zones.find(zone => zone.id === model.selected) ?? null;
const numberOf = zone => visible().indexOf(zone) + 1;
const withIds = zones => zones.map(zone => ({
  id: model.nextId++, name: zone.name, polygon: zone.polygon, tolerance: zone.ignore ? null : zone.tolerance ?? null,
  category: zone.category ?? null,
}));
const select = zone => { model.selected = zone ? zone.id : null; model.corner = null; render(); };
const remove = zone => change(() => {
  model.zones = model.zones.filter(other => other.id !== zone.id);
  model.selected = model.corner = null;
});

const inFrame = ([x, y]) => [[x, model.frame[0]], [y, model.frame[1]]].map(([value, most]) => Math.min(most, Math.max(0, Math.round(value))));
const freeName = () => {
  const names = new Set(model.zones.map(zone => zone.name));
  for (let n = model.zones.length + 1; ; n++) {
    const name = fill(TEXTS.newName, {n});
    if (!names.has(name)) return name;
  }
};

const beginDraft = () => change(() => { model.draft = []; model.selected = model.corner = null; });
const addCorner = point => {
  if (model.zones.reduce((sum, zone) => sum + zone.polygon.length, model.draft?.length ?? 0) >= MAX_CORNERS) {
    return say(fill(TEXTS.tooMany, {maximum: MAX_CORNERS}), true);
  }
  const at = inFrame(point), last = model.draft?.at(-1);
  if (last && last[0] === at[0] && last[1] === at[1]) return;  // the second click of a double click
  change(() => {
    model.draft = [...(model.draft ?? []), at];
    model.selected = model.corner = null;
    model.spoken = fill(TEXTS.drawn, {i: model.draft.length, x: at[0], y: at[1]});
  });
};
const closeDraft = () => {
  if (!model.draft) return;
  if (model.draft.length < 3) return say(TEXTS.fewCorners, true);
  change(() => {
    const category = model.categories.length > 1 ? model.category : null;
    const zone = {id: model.nextId++, name: freeName(), polygon: model.draft, tolerance: null, category};
    model.zones = [...model.zones, zone];
    model.draft = null;
    model.selected = zone.id;
    model.spoken = fill(TEXTS.closed, {name: zone.name});
  });
};
const abandonDraft = () => change(() => { model.draft = null; model.spoken = TEXTS.abandoned; });
const dropCorner = () => {
  if (model.draft?.length) return change(() => { model.draft = model.draft.length > 1 ? model.draft.slice(0, -1) : null; });
  const zone = selected();
  if (!model.draft && zone && model.corner !== null && zone.polygon.length > 3) {
    change(() => { zone.polygon = zone.polygon.filter((_, i) => i !== model.corner); model.corner = null; });
  }
};
const moveCorner = (zone, i, point) => {
  const at = inFrame(point);
  zone.polygon = zone.polygon.map((corner, n) => n === i ? at : corner);
  model.spoken = fill(TEXTS.corner, {i: i + 1, name: zone.name, x: at[0], y: at[1]});
};
const chooseCorner = by => {
  const zone = selected() ?? visible()[0];
  if (!zone || model.draft) return;
  const count = zone.polygon.length;
  model.corner = model.selected === zone.id && model.corner !== null ? (model.corner + by + count) % count : 0;
  model.selected = zone.id;
  model.crosshair = false;
  const [x, y] = zone.polygon[model.corner];
  model.spoken = fill(TEXTS.corner, {i: model.corner + 1, name: zone.name, x, y});
  render();
};
