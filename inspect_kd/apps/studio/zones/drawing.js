/* The picture with its zones as SVG, in the frame's own pixels; mouse, pen and keys on it. */
const SVG = 'http://www.w3.org/2000/svg';
const NEAR = 9;  // pixels of the screen within which a click means a corner
const svgElement = (name, attributes = {}, text = null) => {
  const made = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  if (text !== null) made.textContent = text;
  return made;
};
const points = corners => corners.map(corner => corner.join(',')).join(' ');
const ruleOf = zone => zone.tolerance === null ? 'ignored' : zone.tolerance < 1 ? 'stricter' : 'lenient';
const screenUnit = () => model.frame[0] / (canvas().clientWidth || model.frame[0]);  // pixels of the frame in one of the screen

const hatch = unit => {
  const pattern = svgElement('pattern', {
    id: 'zones-hatch', width: 8 * unit, height: 8 * unit, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)',
  });
  pattern.append(
    svgElement('rect', {width: 8 * unit, height: 8 * unit, class: 'ground'}),
    svgElement('rect', {width: 3 * unit, height: 8 * unit, class: 'line'}),
  );
  const defs = svgElement('defs');
  defs.append(pattern);
  return defs;
};

const drawZone = (zone, unit) => {
  const group = svgElement('g', {class: `zone ${ruleOf(zone)}${zone.id === model.selected ? ' selected' : ''}`, 'data-zone': zone.id});
  const outline = points(zone.polygon);
  group.append(svgElement('polygon', {points: outline, class: 'halo'}), svgElement('polygon', {points: outline, class: 'outline'}));
  const middle = [0, 1].map(axis => zone.polygon.reduce((sum, corner) => sum + corner[axis], 0) / zone.polygon.length);
  const label = zone.tolerance === null ? `${numberOf(zone)}` : `${numberOf(zone)} · ×${zone.tolerance}`;
  group.append(svgElement('text', {x: middle[0], y: middle[1], 'font-size': 14 * unit, 'stroke-width': 4 * unit}, label));
  return group;
};
const drawCorners = (corners, unit, chosen, kind) => corners.map(([x, y], i) => svgElement('circle', {
  cx: x, cy: y, r: (i === chosen ? 7 : 5) * unit, class: `corner ${kind}${i === chosen ? ' chosen' : ''}`, 'data-corner': i,
}));
const drawCrosshair = unit => {
  const [x, y] = model.cursor, [width, height] = model.frame;
  const group = svgElement('g', {class: 'crosshair'});
  ['halo', 'hair'].forEach(kind => group.append(
    svgElement('line', {x1: 0, x2: width, y1: y, y2: y, class: kind}), svgElement('line', {x1: x, x2: x, y1: 0, y2: height, class: kind}),
    svgElement('circle', {cx: x, cy: y, r: 8 * unit, class: kind}),
  ));
  return group;
};

const renderDrawing = () => {
  const [width, height] = model.frame, unit = screenUnit(), zone = selected();
  const svg = svgElement('svg', {viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true'});
  svg.append(hatch(unit), svgElement('image', {href: model.picture, width, height, preserveAspectRatio: 'none'}));
  visible().forEach(each => svg.append(drawZone(each, unit)));
  if (zone && !model.draft && visible().includes(zone)) svg.append(...drawCorners(zone.polygon, unit, model.corner, 'own'));
  if (model.draft?.length) {
    svg.append(svgElement('polyline', {points: points(model.draft), class: 'draft halo'}), svgElement('polyline', {points: points(model.draft), class: 'draft'}));
    svg.append(...drawCorners(model.draft, unit, 0, 'draft'));
  }
  if (model.crosshair) svg.append(drawCrosshair(unit));
  canvas().style.setProperty('--ratio', width / height);
  canvas().replaceChildren(svg);
};

const pointOf = event => {
  const box = canvas().querySelector('svg').getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * model.frame[0], (event.clientY - box.top) / box.height * model.frame[1]];
};
const isNear = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) <= NEAR * screenUnit();
const closesDraft = point => model.draft?.length >= 3 && isNear(point, model.draft[0]);

let drag = null;
const onPointerDown = event => {
  if (event.button !== 0 || !model.frame) return;
  event.preventDefault();
  canvas().focus({preventScroll: true});
  model.crosshair = false;
  const point = pointOf(event), zone = selected();
  model.cursor = inFrame(point);
  if (model.draft) return closesDraft(point) ? closeDraft() : addCorner(point);
  const corner = zone ? zone.polygon.findIndex(each => isNear(each, point)) : -1;
  if (corner >= 0) {
    model.corner = corner;
    drag = {zone, corner, former: snapshot(), from: [event.clientX, event.clientY]};
    canvas().setPointerCapture(event.pointerId);
    return render();
  }
  const hit = event.target.closest?.('[data-zone]');
  if (hit) return select(model.zones.find(each => each.id === Number(hit.dataset.zone)));
  addCorner(point);
};
const onPointerMove = event => {
  if (!drag) return;
  // A click that chooses a corner must not move it.
  if (drag.former && Math.hypot(event.clientX - drag.from[0], event.clientY - drag.from[1]) < 3) return;
  if (drag.former) remember(drag.former);
  drag.former = null;
  moveCorner(drag.zone, drag.corner, pointOf(event));
  render();
};
const onPointerUp = () => {
  const moved = drag && !drag.former;
  drag = null;
  if (moved) changed();
};

const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
const onArrow = (key, by) => {
  const zone = selected(), [dx, dy] = ARROWS[key].map(way => way * by);
  if (!model.draft && zone && model.corner !== null) {
    const [x, y] = zone.polygon[model.corner];
    return change(() => moveCorner(zone, model.corner, [x + dx, y + dy]));
  }
  model.cursor = inFrame([model.cursor[0] + dx, model.cursor[1] + dy]);
  model.crosshair = true;
  model.spoken = fill(TEXTS.cursor, {x: model.cursor[0], y: model.cursor[1]});
  render();
};
const onSpace = () => {
  model.crosshair = true;
  return closesDraft(model.cursor) ? closeDraft() : addCorner(model.cursor);
};
const onEscape = () => {
  if (model.draft) return abandonDraft();
  if (model.corner !== null) model.corner = null; else model.selected = null;
  render();
};
const onDelete = () => { const zone = selected(); if (zone && !model.draft) remove(zone); };
const ACTIONS = {
  ' ': () => onSpace(), enter: () => closeDraft(), escape: () => onEscape(), backspace: () => dropCorner(), delete: () => onDelete(),
  c: event => chooseCorner(event.shiftKey ? -1 : 1), n: () => beginDraft(),
};
const onCanvasKey = event => {
  if (!model.frame || event.altKey || event.metaKey) return;
  const act = ARROWS[event.key] ? () => onArrow(event.key, event.ctrlKey ? 100 : event.shiftKey ? 10 : 1) : !event.ctrlKey && ACTIONS[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  event.stopPropagation();
  act(event);
};
