// The map: a picture with one pixel for each setting, or, for samples, points.

const MAX_TICKS = 9, MAX_OUTLINES = 2000, MAX_DOTS = 2000, DIMMED = 0x28;
let map = null, cells = null, strides = null;

function indexCells() {
  if (!contents.has_cells) return;
  strides = [];
  let total = 1;
  for (const axis of contents.axes) { strides.push(total); total *= axis.words.length; }
  cells = new Int32Array(total).fill(-1);
  for (let s = 0; s < numSettings; s++)
    cells[contents.axes.reduce((sum, axis, i) => sum + placesOf(axis)[s] * strides[i], 0)] = s;
}

const axisAt = (which) => contents.axes[state[which]] || { name: "", label: "", words: [""], positions: [0.5] };

// The number of the cell in the lower left, with the values that the sliders have.
const corner = () => contents.axes.reduce((sum, _, k) => sum + (k === state.x || k === state.y ? 0 : state.fixed[k] * strides[k]), 0);
const settingAt = (i, j) => cells[corner() + i * strides[state.x] + (contents.axes.length > 1 ? j * strides[state.y] : 0)];

// Where a setting lies on the map: at the centre of its cell, or at its point.
function spot(s) {
  return ["x", "y"].map((which) => {
    const axis = axisAt(which), place = axis.name ? placesOf(axis)[s] : 0;
    return contents.has_cells ? place + 0.5 : axis.positions[place];
  });
}

const isOnMap = (s) => !contents.has_cells || contents.axes.every((axis, k) => k === state.x || k === state.y || placesOf(axis)[s] === state.fixed[k]);

function makeMap(target) {
  const figure = newFigure({ tools: "pan,box_zoom,wheel_zoom,zoom_in,zoom_out,reset", height: target.clientHeight, x_range: [0, 1], y_range: [0, 1] });
  const picture = source({ image: [], x: [], y: [], dw: [], dh: [] });
  const points = source({ x: [], y: [], color: [] }), outlines = source({ x: [], y: [] }), marks = source({ x: [], y: [], color: [], size: [] });
  figure.image_rgba({ image: { field: "image" }, x: { field: "x" }, y: { field: "y" }, dw: { field: "dw" }, dh: { field: "dh" }, source: picture });
  // More points than that are small squares, which are drawn faster.
  figure.scatter({ x: { field: "x" }, y: { field: "y" }, size: numSettings > MAX_DOTS ? 4 : 6, marker: numSettings > MAX_DOTS ? "square" : "circle", fill_color: { field: "color" }, line_color: null, source: points });
  for (const [color, width] of [["white", 3], ["black", 1]])
    figure.rect({ x: { field: "x" }, y: { field: "y" }, width: 1, height: 1, fill_color: null, line_color: color, line_width: width, source: outlines });
  const marked = { x: { field: "x" }, y: { field: "y" }, fill_color: null, line_color: { field: "color" }, line_width: 3, source: marks };
  if (contents.has_cells) figure.rect({ ...marked, width: 1, height: 1 });
  figure.scatter({ ...marked, size: { field: "size" } });
  map = { figure, picture, points, outlines, marks };
  figure.on_event("mousemove", (event) => hover(event));
  figure.on_event("mouseleave", () => { document.getElementById("tip").hidden = true; });
  figure.on_event("tap", (event) => { const s = settingUnder(event.x, event.y); if (s >= 0) choose(s); });
  for (const range of [figure.x_range, figure.y_range]) range.properties.start.change.connect(() => setTicks());
}

function settingUnder(x, y) {
  if (contents.has_cells) {
    const inside = x >= 0 && y >= 0 && x < axisAt("x").words.length && y < axisAt("y").words.length;
    return inside ? settingAt(Math.floor(x), Math.floor(y)) : -1;
  }
  let nearest = -1, least = 0.02 ** 2;
  for (let s = 0; s < numSettings; s++) {
    const [a, b] = spot(s), distance = (a - x) ** 2 + (b - y) ** 2;
    if (distance < least) [nearest, least] = [s, distance];
  }
  return nearest;
}

function hover(event) {
  const tip = document.getElementById("tip"), s = settingUnder(event.x, event.y);
  tip.hidden = s < 0;
  if (s < 0) return;
  tip.replaceChildren(element("strong", settingWords(s)), element("div", cellWords(s)));
  const box = document.getElementById("map").getBoundingClientRect();
  const left = Math.min(box.left + event.sx + 14, innerWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(4, left) + scrollX}px`;
  tip.style.top = `${box.top + event.sy + 14 + scrollY}px`;
}

function resetMap() {
  for (const [which, range] of [["x", map.figure.x_range], ["y", map.figure.y_range]]) {
    const count = contents.has_cells ? axisAt(which).words.length : 1, margin = contents.has_cells ? 0 : 0.04;
    const ends = { start: -margin, end: count + margin };
    range.setv({ ...ends, reset_start: ends.start, reset_end: ends.end });
  }
  map.figure.xaxis.axis_label = plain(axisAt("x").label);
  map.figure.yaxis.axis_label = plain(axisAt("y").label);
  setTicks();
}

function setTicks() {
  for (const [which, range, axis] of [["x", map.figure.x_range, map.figure.xaxis], ["y", map.figure.y_range, map.figure.yaxis]]) {
    const { words, positions } = axisAt(which), at = (i) => (contents.has_cells ? i + 0.5 : positions[i]);
    const inView = words.map((_, i) => i).filter((i) => at(i) >= range.start && at(i) <= range.end);
    const stride = Math.ceil(inView.length / (which === "x" && innerWidth < 600 ? 5 : MAX_TICKS));
    const kept = inView.filter((_, i) => i % stride === 0);
    axis.ticker = new Bokeh.FixedTicker({ ticks: kept.map(at) });
    axis.major_label_overrides = new Map(kept.map((i) => [at(i), plain(words[i])]));
  }
}

function drawMap() {
  const { shade } = frame(), isPart = state.brushes.size > 0;
  const color = (s) => (isPart && !selected[s] && shade[s] ? ((shade[s] & 0xffffff) | (DIMMED << 24)) >>> 0 : shade[s]);
  const [width, height] = ["x", "y"].map((which) => axisAt(which).words.length);
  if (contents.has_cells) {
    const pixels = new Uint32Array(width * height), [across, up] = [strides[state.x], contents.axes.length > 1 ? strides[state.y] : 0];
    for (let j = 0, p = 0; j < height; j++) for (let i = 0, cell = corner() + j * up; i < width; i++, p++, cell += across)
      if (cells[cell] >= 0) pixels[p] = color(cells[cell]);
    map.picture.data = { image: [matrix(pixels, height, width)], x: [0], y: [0], dw: [width], dh: [height] };
    const tied = contents.is_tested ? [...arrays.standing.keys()].filter((s) => ["best", "as good"].includes(standing(s)) && isOnMap(s)).slice(0, MAX_OUTLINES) : [];
    map.outlines.data = columns(tied.map(spot), ["x", "y"]);
  } else {
    const order = Array.from({ length: numSettings }, (_, i) => numSettings - 1 - i).filter((s) => shade[s]);
    map.points.data = { ...columns(order.map(spot), ["x", "y"]), color: order.map((s) => cssColor(color(s))) };
  }
  markMap();
  drawScale();
  remember();
}

function markMap() {
  const palette = theme(), spots = [[state.chosen, "#e3342f"], [state.cursor, palette.accent]].filter(([s], i) => isOnMap(s) && (i === 0 || s !== state.chosen));
  // A cell that is too small to be seen has a ring around it.
  const size = contents.has_cells && Math.max(axisAt("x").words.length, axisAt("y").words.length) < 60 ? 0 : 14;
  map.marks.data = { ...columns(spots.map(([s]) => spot(s)), ["x", "y"]), color: spots.map(([, color]) => color), size: spots.map(() => size) };
}

function drawScale() {
  const { limits } = frame(), colors = quantity().largest ? contents.colors : [...contents.colors].reverse();
  document.getElementById("ramp").style.background = `linear-gradient(to right, ${colors.filter((_, i) => i % 15 === 0).join(",")})`;
  document.getElementById("low").textContent = limits ? number(limits[0]) : "";
  document.getElementById("high").textContent = limits ? number(limits[1]) + (limits[2] ? " (logarithmic)" : "") : "no values";
  document.getElementById("map").setAttribute("aria-label", `Map of ${quantity().label} over ${axisAt("x").label} and ${axisAt("y").label}`);
}

// Moves the cursor by a cell, or, among points, to the next rank.
function moveCursor(dx, dy) {
  let next = state.cursor + dx - dy;
  if (contents.has_cells) {
    const [x, y] = isOnMap(state.cursor) ? spot(state.cursor) : [0.5, 0.5];
    next = settingUnder(x + dx, y + dy);
  }
  if (next < 0 || next >= numSettings) return;
  state.cursor = next;
  markMap();
  sayCell();
}
