// Parallel coordinates: each setting is a line over all axes and the value that is shown; boxes over axes select settings.

const ROWS = 300, LOWEST = -0.12, HIGHEST = 1.04, DIVERGED_AT = -0.08, MAX_SMOOTH = 1500, GREY = 0x80808080;
// So many pixels of lines can be drawn while a brush moves.
const MAX_INKED = 4.5e6;
let parallel = null;

// What is drawn: the axes, and last the value.
const columnNames = () => [...contents.axes.map((axis) => axis.name), ""];
const isValue = (column) => column === contents.axes.length;

let known = new Map();
function positionsOf(column) {
  const key = isValue(column) ? frame().key : "";
  if (known.get(column)?.key === key) return known.get(column).positions;
  const positions = new Float32Array(numSettings);
  if (isValue(column)) {
    const [low, high] = valueEnds(), isLog = frame().limits?.[2];
    for (let s = 0; s < numSettings; s++) {
      const value = frame().mean[s];
      positions[s] = Number.isNaN(value) ? DIVERGED_AT : fraction(value, [low, high, isLog]);
    }
  } else {
    const axis = contents.axes[column], places = placesOf(axis);
    for (let s = 0; s < numSettings; s++) positions[s] = axis.positions[places[s]];
  }
  known.set(column, { key, positions });
  return positions;
}

function valueEnds() {
  let low = Infinity, high = -Infinity;
  for (const value of frame().mean) { if (value < low) low = value; if (value > high) high = value; }
  return low <= high ? [low, high] : [0, 1];
}

function valueAt(position) {
  const [low, high] = valueEnds();
  return number(frame().limits?.[2] ? low * (high / low) ** position : low + (high - low) * position, false);
}

function makeParallel(target) {
  const last = contents.axes.length;
  const figure = newFigure({ tools: "", height: target.clientHeight, x_range: innerWidth < 600 ? [-0.4, last + 0.7] : [-0.25, last + 0.3], y_range: [LOWEST - 0.16, HIGHEST] });
  const all = source({ image: [] }), some = source({ image: [] }), boxes = source({ left: [], right: [], bottom: [], top: [] });
  const axes = source({ x: [], y0: [], y1: [] }), words = source({ x: [], y: [], text: [] }), names = source({ x: [], y: [], text: [] });
  const place = { x: 0, y: LOWEST, dw: last, dh: HIGHEST - LOWEST };
  const [faint] = [all, some].map((each) => figure.image_rgba({ image: { field: "image" }, ...place, source: each }));
  figure.segment({ x0: { field: "x" }, x1: { field: "x" }, y0: { field: "y0" }, y1: { field: "y1" }, line_width: 1.5, source: axes });
  figure.quad({ left: { field: "left" }, right: { field: "right" }, bottom: { field: "bottom" }, top: { field: "top" }, fill_color: "#e3342f", fill_alpha: 0.2, line_color: "#e3342f", source: boxes });
  const text = figure.text({ x: { field: "x" }, y: { field: "y" }, text: { field: "text" }, x_offset: 5, text_baseline: "middle", text_font_size: "11px", background_fill_alpha: 0.7, padding: 1, source: words });
  const title = figure.text({ x: { field: "x" }, y: { field: "y" }, text: { field: "text" }, text_align: "center", text_baseline: "top", text_font_size: "12px", source: names });
  const tool = new Bokeh.BoxSelectTool({ continuous: true, persistent: false });
  figure.add_tools(tool);
  figure.toolbar.active_drag = tool;
  figure.toolbar_location = null;
  figure.xaxis.visible = figure.yaxis.visible = false;
  figure.ygrid.visible = figure.xgrid.visible = false;
  figure.on_event("selectiongeometry", ({ geometry: { x0, x1, y0, y1 } }) => brushBox(x0, x1, y0, y1));
  parallel = { figure, all, some, faint, boxes, axes, words, text, names, title };
}

function brushBox(x0, x1, y0, y1) {
  for (let column = Math.max(0, Math.ceil(x0)); column <= Math.min(contents.axes.length, Math.floor(x1)); column++)
    state.brushes.set(column, [y0, y1]);
  brush();
}

function drawAxes() {
  const names = [...contents.axes.map((axis) => axis.label), quantity().label], palette = theme();
  parallel.axes.data = { x: names.map((_, i) => i), y0: names.map(() => 0), y1: names.map(() => 1) };
  const spots = names.flatMap((_, column) => {
    if (isValue(column)) return [...[0, 0.25, 0.5, 0.75, 1].map((y) => [column, y, valueAt(y)]), [column, DIVERGED_AT, "no mean"]];
    const { words, positions } = contents.axes[column], stride = Math.ceil(words.length / 7);
    return words.map((word, i) => [column, positions[i], word]).filter((_, i) => i % stride === 0);
  });
  parallel.words.data = columns(spots, ["x", "y", "text"]);
  parallel.text.glyph.text_color = palette.text;
  parallel.text.glyph.background_fill_color = palette.card;
  const said = names.map((name) => name.split(" (")[0].replace(/ /g, innerWidth < 600 ? "\n" : " "));
  parallel.names.data = columns(said.map((name, column) => [column, LOWEST, name]), ["x", "y", "text"]);
  parallel.title.glyph.text_color = palette.text;
  document.getElementById("parallel").setAttribute("aria-label", `Parallel coordinates of ${numSettings} settings over ${names.join(", ")}; the sliders below select settings`);
}

// All lines are drawn once; while a part of them is selected, they are faint, and that part is drawn over them.
function drawParallel() {
  const key = [frame().key, theme().isDark].join(), isPart = state.brushes.size > 0;
  if (parallel.key !== key) {
    drawAxes();
    parallel.all.data = { image: [lines(frame().shade, null)] };
    parallel.key = key;
    parallel.isFaint = false;
  }
  if (isPart !== parallel.isFaint) {
    parallel.faint.glyph.global_alpha = isPart ? 0.15 : 1;
    parallel.isFaint = isPart;
  }
  parallel.some.data = { image: isPart ? [lines(frame().shade, selected)] : [] };
  const boxes = [...state.brushes].map(([column, [low, high]]) => [column - 0.03, column + 0.03, low, high]);
  parallel.boxes.data = columns(boxes, ["left", "right", "bottom", "top"]);
}

// Returns the lines of settings as a picture, the best over the others; all of them if none are marked as drawn.
function lines(shade, isDrawn) {
  const order = [];
  for (let s = numSettings - 1; s >= 0; s--) if (!isDrawn || isDrawn[s]) order.push(s);
  const width = Math.max(200, Math.min(900, document.getElementById("parallel").clientWidth, Math.round(MAX_INKED / (order.length + 1))));
  const positions = columnNames().map((_, column) => positionsOf(column));
  const rows = positions.map((found) => Float32Array.from(found, (p) => ((p - LOWEST) / (HIGHEST - LOWEST)) * (ROWS - 1)));
  const pixels = order.length <= MAX_SMOOTH ? smoothLines(order, rows, width, shade) : plainLines(order, rows, width, shade);
  return matrix(pixels, ROWS, width);
}

function smoothLines(order, rows, width, shade) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height: ROWS });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  for (const s of order) {
    pen.strokeStyle = cssColor(shade[s] || GREY);
    pen.beginPath();
    rows.forEach((row, i) => pen.lineTo((i * (width - 1)) / Math.max(1, rows.length - 1), row[s] + 0.5));
    pen.stroke();
  }
  return new Uint32Array(pen.getImageData(0, 0, width, ROWS).data.buffer);
}

function plainLines(order, rows, width, shade) {
  const pixels = new Uint32Array(width * ROWS), gaps = rows.length - 1;
  for (const s of order) {
    const ink = shade[s] || GREY;
    for (let i = 0; i < gaps; i++) {
      const start = Math.round((i * (width - 1)) / gaps), end = Math.round(((i + 1) * (width - 1)) / gaps);
      const slope = (rows[i + 1][s] - rows[i][s]) / (end - start);
      let height = rows[i][s], before = height | 0;
      for (let x = start; x <= end; x++, height += slope) {
        const here = height | 0;
        const low = before < here ? before + 1 : here, high = before < here ? here : before > here ? before - 1 : here;
        for (let y = low; y <= high; y++) pixels[y * width + x] = ink;
        before = here;
      }
    }
  }
  return pixels;
}

// Two sliders for each axis, from and to: places among its values, or per cent of the span of the value.
let ranges = [];
function makeRanges() {
  ranges = columnNames().map((_, column) => [0, 1].map((which) => {
    const input = element("input", "", { type: "range", min: 0, max: isValue(column) ? 100 : contents.axes[column].words.length - 1 });
    input.addEventListener("input", () => brushRange(column, which));
    return input;
  }));
  const fields = ranges.map((ends, column) => {
    const field = element("fieldset");
    field.append(element("legend", isValue(column) ? quantity().label : contents.axes[column].label));
    ends.forEach((input, which) => {
      const label = element("label", which ? "to" : "from");
      label.append(input, element("output", "", SILENT));
      field.append(label);
    });
    return field;
  });
  document.getElementById("ranges").replaceChildren(...fields);
}

const placeAt = (column, i) => (isValue(column) ? i / 100 : contents.axes[column].positions[i]);

// Shows the brushes at the sliders.
function showRanges() {
  ranges.forEach((ends, column) => {
    const most = Number(ends[0].max), brush = state.brushes.get(column), inside = [];
    for (let i = 0; brush && i <= most; i++)
      if (placeAt(column, i) >= brush[0] - 1e-6 && placeAt(column, i) <= brush[1] + 1e-6) inside.push(i);
    ends.forEach((input, which) => {
      input.value = inside.length ? inside[which && inside.length - 1] : which && most;
      const words = isValue(column) ? valueAt(input.value / 100) : contents.axes[column].words[input.value];
      input.setAttribute("aria-valuetext", words);
      input.nextElementSibling.textContent = words;
    });
  });
}

// A slider that passes the other one takes it along.
function brushRange(column, which) {
  const ends = ranges[column].map((input) => Number(input.value)), most = Number(ranges[column][0].max);
  if (ends[0] > ends[1]) ends[1 - which] = ends[which];
  if (ends[0] === 0 && ends[1] === most) state.brushes.delete(column);
  else state.brushes.set(column, ends.map((i) => placeAt(column, i)));
  brush();
}
