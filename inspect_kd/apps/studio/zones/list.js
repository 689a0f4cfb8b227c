/* The list of zones: name, what holds, category, delete. Names are data: they are set as values and text, never as HTML. */
const htmlElement = (name, properties = {}, attributes = {}) => {
  const made = Object.assign(document.createElement(name), properties);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return made;
};
const options = choices => choices.map(([value, text]) => htmlElement('option', {value, textContent: text}));

const nameField = (zone, n) => htmlElement(
  'input', {type: 'text', value: zone.name, maxLength: 100}, {'data-field': 'name', 'aria-label': fill(TEXTS.name, {n})},
);
const ruleField = (zone, n) => {
  const made = htmlElement('select', {}, {'data-field': 'rule', 'aria-label': fill(TEXTS.rule, {n})});
  made.append(...options([['ignore', TEXTS.ignore], ['tolerance', TEXTS.tolerance]]));
  made.value = zone.tolerance === null ? 'ignore' : 'tolerance';
  return made;
};
const factorField = (zone, n) => htmlElement(
  'input', {type: 'number', value: zone.tolerance, min: LOW, max: HIGH, step: 0.05},
  {'data-field': 'factor', 'aria-label': fill(TEXTS.factor, {n})},
);
const scopeField = (zone, n) => {
  const made = htmlElement('select', {}, {'data-field': 'scope', 'aria-label': fill(TEXTS.scope, {n})});
  made.append(...options([['here', fill(TEXTS.here, {category: model.category})], ['everywhere', TEXTS.everywhere]]));
  made.value = zone.category === null ? 'everywhere' : 'here';
  return made;
};
const row = (zone, n) => {
  const made = htmlElement('li', {className: `${ruleOf(zone)}${zone.id === model.selected ? ' selected' : ''}`}, {'data-row': zone.id});
  const pick = htmlElement(
    'button', {type: 'button', textContent: n},
    {'data-field': 'pick', 'aria-label': fill(TEXTS.pick, {n, corners: zone.polygon.length}), 'aria-pressed': zone.id === model.selected},
  );
  const bin = htmlElement('button', {type: 'button', textContent: '✕'}, {'data-field': 'remove', 'aria-label': fill(TEXTS.remove, {n})});
  made.append(pick, nameField(zone, n), bin, ruleField(zone, n));
  if (zone.tolerance !== null) made.append(factorField(zone, n));
  if (model.categories.length > 1) made.append(scopeField(zone, n));
  return made;
};

const fieldKey = element => {
  const field = element?.closest?.('[data-field]'), inRow = field?.closest('[data-row]');
  return inRow ? `[data-row="${inRow.dataset.row}"] [data-field="${field.dataset.field}"]` : null;
};
const renderList = () => {
  const list = part('.zones-list'), focused = list.contains(document.activeElement) ? fieldKey(document.activeElement) : null;
  // The field with the focus keeps what is being typed.
  const typed = focused && document.activeElement.matches('input') && model.before !== null;
  if (typed) return markRows(list);
  const rows = visible().map((zone, i) => row(zone, i + 1));
  list.replaceChildren(...(rows.length ? rows : [htmlElement('li', {className: 'none', textContent: TEXTS.none})]));
  showSelected(list);
  if (focused) (list.querySelector(focused) ?? list.querySelector('button') ?? canvas()).focus({preventScroll: true});
};
// Only the list scrolls: the page must not move under the mouse.
const showSelected = list => {
  const chosen = list.querySelector('.selected');
  if (!chosen) return;
  const top = chosen.offsetTop - list.offsetTop, bottom = top + chosen.offsetHeight;
  if (top < list.scrollTop || bottom > list.scrollTop + list.clientHeight) list.scrollTop = Math.max(0, bottom - list.clientHeight);
};
const markRows = list => list.querySelectorAll('[data-row]').forEach(each => {
  const isSelected = Number(each.dataset.row) === model.selected;
  each.classList.toggle('selected', isSelected);
  each.querySelector('[data-field=pick]').setAttribute('aria-pressed', isSelected);
});

const zoneAt = target => {
  const found = target.closest?.('[data-row]');
  return found ? model.zones.find(zone => zone.id === Number(found.dataset.row)) : null;
};
const onListFocus = event => {
  const zone = zoneAt(event.target);
  if (!zone) return;
  if (event.target.matches('input')) model.before = snapshot();
  if (model.selected !== zone.id && !model.draft) { model.selected = zone.id; model.corner = null; renderDrawing(); markRows(part('.zones-list')); }
};
const onListInput = event => {
  const zone = zoneAt(event.target), {field} = event.target.dataset;
  if (!zone || !['name', 'factor'].includes(field)) return;
  if (typeof model.before === 'string' && model.before !== 'typed') { remember(model.before); model.before = 'typed'; }
  if (field === 'name') zone.name = event.target.value;
  else zone.tolerance = event.target.value === '' ? 0 : Number(event.target.value);
  changed();
};
const onListChange = event => {
  const zone = zoneAt(event.target), {value, dataset} = event.target;
  if (!zone || !['rule', 'scope'].includes(dataset.field)) return;
  model.before = null;  // another field may still have the focus
  if (dataset.field === 'rule') change(() => { zone.tolerance = value === 'ignore' ? null : 0.5; });
  else change(() => { zone.category = value === 'everywhere' ? null : model.category; });
};
const onListBlur = () => { model.before = null; };
const onListClick = event => {
  const zone = zoneAt(event.target), field = event.target.closest?.('[data-field]')?.dataset.field;
  if (!zone) return;
  if (field === 'remove') remove(zone);
  else if (field === 'pick') { if (model.draft) return; select(zone); chooseCorner(1); canvas().focus({preventScroll: true}); }
};
const onListKey = event => {
  const zone = zoneAt(event.target);
  if (event.key !== 'Delete' || !zone || event.target.matches('input')) return;
  event.preventDefault();
  remove(zone);
};
