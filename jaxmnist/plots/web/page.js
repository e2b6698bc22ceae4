// What a click, a slider and a brush change, and the start of the page.

// What is said beside a slider, whose own value a screen reader reads aloud.
const SILENT = { ariaLive: "off" };
const plain = (text) => new Bokeh.PlainText({ text: String(text) });
const source = (data) => new Bokeh.ColumnDataSource({ data });
const matrix = (pixels, height, width) => Bokeh.require("core/util/ndarray").ndarray(pixels, { dtype: "uint32", shape: [height, width] });
const columns = (rows, names) => Object.fromEntries(names.map((name, i) => [name, rows.map((row) => row[i])]));
const cssColor = (color) => `rgba(${color & 255},${(color >> 8) & 255},${(color >> 16) & 255},${((color >>> 24) & 255) / 255})`;

function newFigure(options) {
  const figure = Bokeh.Plotting.figure({ sizing_mode: "stretch_width", ...options });
  figure.toolbar.logo = null;
  figure.toolbar.autohide = true;
  // A finger on a figure moves the page.
  if (matchMedia("(pointer: coarse)").matches) figure.toolbar.active_drag = null;
  return figure;
}

function paint(figure) {
  const { text, soft, line } = theme();
  figure.setv({ background_fill_color: null, border_fill_color: null, outline_line_color: line });
  for (const axis of [figure.xaxis, figure.yaxis])
    Object.assign(axis, { axis_label_text_color: text, major_label_text_color: text, axis_line_color: soft, major_tick_line_color: soft, minor_tick_line_color: null });
  for (const grid of [figure.xgrid, figure.ygrid]) grid.grid_line_color = line;
}

function paintAll() {
  const { text } = theme();
  for (const { figure } of [map, curves, parallel].filter(Boolean)) paint(figure);
  map.figure.xgrid.visible = map.figure.ygrid.visible = false;
  if (curves) curves.middle.glyph.line_color = text;
  shown = null;
}

function choose(s) {
  state.chosen = state.cursor = s;
  sayCell();
  markMap();
  drawRuns();
  drawTable();
  remember();
}

// A pointer moves more often than the screen is painted.
let isWaiting = false;
function brush() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => { isWaiting = false; brushed(); });
}

function brushed() {
  select();
  const count = selected.reduce((sum, each) => sum + each, 0);
  document.getElementById("selected").textContent = `${count.toLocaleString("en")} of ${numSettings.toLocaleString("en")} settings are selected.`;
  orderTable();
  drawMap();
  drawParallel();
  drawTable();
  showRanges();
}

// After a change of what is shown: the quantity, or the budget.
function reframe() {
  select();
  orderTable();
  drawMap();
  drawParallel();
  drawRuns();
  drawTable();
  showRanges();
  sayCell();
}

// A screen reader reads it aloud whenever it changes.
function sayCell() {
  document.getElementById("cell").textContent = `${settingWords(state.cursor)}: ${cellWords(state.cursor)}`;
}

function options(select, words, chosen, values = words.map((_, i) => i)) {
  select.replaceChildren(...words.map((word, i) => element("option", word, { value: values[i], selected: values[i] === chosen })));
}

function setBudgets() {
  const found = [...(hasEnd() ? [["end", "the end of training"]] : []), ...(hasCurves() ? contents.frames.map(({ name }) => [name, `equal ${name}`]) : [])];
  if (!found.some(([name]) => name === state.budget)) state.budget = found[0][0];
  options(document.getElementById("budget"), found.map(([, words]) => words), state.budget, found.map(([name]) => name));
  setAmounts();
}

function setAmounts() {
  document.getElementById("amount-label").hidden = state.budget === "end";
  if (state.budget === "end") return;
  const { amounts, words } = budget(), slider = document.getElementById("amount");
  state.amount = Math.min(state.amount, amounts.length - 1);
  slider.max = amounts.length - 1;
  slider.value = state.amount;
  const said = `${Number(amounts[state.amount].toPrecision(4)).toLocaleString("en")} ${words}`;
  slider.setAttribute("aria-valuetext", said);
  document.getElementById("amount-words").textContent = said;
}

function setAxes() {
  const names = contents.axes.map((axis) => axis.label);
  options(document.getElementById("x"), names, state.x);
  options(document.getElementById("y"), names, state.y);
  const sliders = contents.axes.map((axis, k) => {
    if (!contents.has_cells || k === state.x || k === state.y || axis.words.length < 2) return null;
    const label = element("label", axis.label), said = element("output", axis.words[state.fixed[k]], SILENT);
    const slider = element("input", "", { type: "range", min: 0, max: axis.words.length - 1, value: state.fixed[k], id: `fixed-${k}` });
    slider.setAttribute("aria-valuetext", axis.words[state.fixed[k]]);
    slider.addEventListener("input", () => {
      state.fixed[k] = Number(slider.value);
      said.textContent = axis.words[state.fixed[k]];
      slider.setAttribute("aria-valuetext", said.textContent);
      drawMap();
    });
    label.append(slider, said);
    return label;
  });
  document.getElementById("fixed").replaceChildren(...sliders.filter(Boolean));
}

function setAxis(which, value) {
  const other = which === "x" ? "y" : "x";
  if (state[other] === value) state[other] = state[which];
  state[which] = value;
  setAxes();
  resetMap();
  drawMap();
}

function listen() {
  const on = (id, kind, act) => document.getElementById(id).addEventListener(kind, act);
  on("x", "change", (event) => setAxis("x", Number(event.target.value)));
  on("y", "change", (event) => setAxis("y", Number(event.target.value)));
  on("quantity", "change", (event) => { state.quantity = Number(event.target.value); state.brushes.delete(contents.axes.length); setBudgets(); makeRanges(); reframe(); });
  on("budget", "change", (event) => { state.budget = event.target.value; state.amount = Infinity; setAmounts(); reframe(); });
  on("amount", "input", (event) => { state.amount = Number(event.target.value); setAmounts(); reframe(); });
  on("clear", "click", () => { state.brushes.clear(); brushed(); });
  on("previous", "click", () => turnTable(-1));
  on("next", "click", () => turnTable(1));
  on("map", "focus", sayCell);
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  on("map", "keydown", (event) => {
    if (event.key === "Enter") choose(state.cursor);
    else if (moves[event.key]) moveCursor(...moves[event.key]);
    else return;
    event.preventDefault();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { paintAll(); reframe(); });
}

function legend() {
  const parts = [["var(--diverged)", "a run diverged"]];
  if (arrays.pruned_step) parts.push(["var(--pruned)", "pruned"]);
  parts.push(["#000", "far worse than the others"]);
  const said = parts.flatMap(([color, words]) => { const swatch = element("span", "", { className: "swatch" }); swatch.style.background = color; return [swatch, words]; });
  document.getElementById("legend").replaceChildren(...said, element("span", `${contents.is_tested ? "; outlined: the best and those as good" : ""}; red: chosen`));
}

async function start() {
  await unpack();
  document.getElementById("subtitle").textContent = contents.subtitle;
  state.fixed = contents.axes.map((axis) => placesOf(axis)[0]);
  state.y = Math.min(1, contents.axes.length - 1);
  const [chosen, ...others] = contents.tables;
  document.getElementById("chosen").replaceChildren(...factTable(chosen));
  document.getElementById("about").replaceChildren(...others.map((table) => { const card = element("section", "", { className: "card" }); card.append(...factTable(table)); return card; }));
  drawImportance();
  recall();
  options(document.getElementById("quantity"), contents.quantities.map(({ label }) => label), state.quantity);
  indexCells();
  setBudgets();
  setAxes();
  legend();
  const thinned = document.getElementById("thinned"), kept = contents.steps.length;
  thinned.hidden = kept === contents.num_recorded;
  thinned.textContent = `Of ${contents.num_recorded} recorded steps, this page holds ${kept}, evenly among them; budgets and curves refer to these.`;
  const targets = ["map", "curves", "parallel"].map((id) => document.getElementById(id));
  makeMap(targets[0]);
  if (contents.steps.length) makeCurves(targets[1]);
  makeParallel(targets[2]);
  paintAll();
  resetMap();
  makeRanges();
  brushed();
  drawRuns();
  listen();
  await Promise.all([map, curves, parallel].map((made, i) => made && Bokeh.Plotting.show(made.figure, targets[i])));
  // Bokeh lets the keyboard reach its canvases, where it finds nothing.
  for (const { figure } of [map, curves, parallel].filter(Boolean)) Bokeh.index.get_by_id(figure.id).canvas.events_el.removeAttribute("tabindex");
  requestAnimationFrame(() => requestAnimationFrame(() => { document.documentElement.dataset.ready = Math.round(performance.now()); }));
}

start().catch((error) => {
  const problem = document.getElementById("problem");
  problem.hidden = false;
  problem.textContent = `The page cannot be shown: ${error.message}`;
  throw error;
});
