// The runs of the chosen setting: their curves, their values at the end, and how to train each again.

let curves = null;

function makeCurves(target) {
  const figure = newFigure({ tools: "pan,box_zoom,wheel_zoom,reset", height: target.clientHeight });
  const lines = source({ xs: [], ys: [], color: [] }), mean = source({ x: [], y: [] });
  figure.multi_line({ xs: { field: "xs" }, ys: { field: "ys" }, line_color: { field: "color" }, line_width: 1.5, source: lines });
  const middle = figure.line({ x: { field: "x" }, y: { field: "y" }, line_width: 3, line_dash: [6, 4], source: mean });
  figure.xaxis.axis_label = plain("training steps");
  curves = { figure, lines, mean, middle };
}

// What is shown, or, if that was not recorded, the first that was.
const recorded = () => [quantity(), ...contents.quantities].find(({ name }) => `${name}_recorded_mean` in arrays);

function curveOf(kind, row) {
  const { name: of, scales } = recorded(), name = `${of}_recorded_${kind}`, count = contents.steps.length, scale = scales[`recorded_${kind}`];
  return Array.from(arrays[name].subarray(row * count, (row + 1) * count), (code) => decoded(code, scale));
}

function drawRuns() {
  const s = state.chosen, [first, end] = [arrays.first_run[s], arrays.first_run[s + 1]];
  document.getElementById("setting").textContent = `${settingWords(s)}: ${cellWords(s)}`;
  const runs = Array.from({ length: end - first }, (_, i) => first + i);
  const target = document.getElementById("curves");
  target.hidden = !curves;
  if (curves) {
    const { name, label } = recorded(), hasSeeds = `${name}_recorded_runs` in arrays;
    const ys = hasSeeds ? runs.map((run) => curveOf("runs", run)) : [curveOf("mean", s)];
    const colors = ys.map((_, i) => contents.colors[Math.round((200 * i) / Math.max(1, ys.length - 1))]);
    curves.lines.data = { xs: ys.map(() => contents.steps), ys, color: colors };
    curves.mean.data = { x: hasSeeds ? contents.steps : [], y: hasSeeds ? curveOf("mean", s) : [] };
    curves.figure.yaxis.axis_label = plain(label);
    target.setAttribute("aria-label", `Curves of ${label} of ${ys.length} runs: ${settingWords(s)}; dashed: their mean`);
  }
  drawRunTable(runs, s);
}

function drawRunTable(runs, s) {
  const finals = arrays[`${quantity().name}_final_runs`], head = element("tr");
  const titles = ["seed", "train again", ...(hasEnd() ? [`${quantity().label.split(" ")[1]} at the end`] : []), "diverged"];
  for (const title of titles)
    head.append(element("th", title, { scope: "col" }));
  const rows = runs.map((run) => {
    const row = element("tr"), code = rerunCode(s, arrays.seed[run]), diverged = arrays.diverged_step[run];
    row.append(element("th", contents.seeds[arrays.seed[run]].replace(/^seed=(\d+)$/, "$1"), { scope: "row" }));
    const button = element("button", "Copy", { type: "button", className: "copy" }), cell = element("td");
    button.setAttribute("aria-label", `Copy ${code}`);
    button.addEventListener("click", () => copy(code));
    cell.append(button);
    row.append(cell);
    const value = finals ? finals[run] : hasEnd() ? arrays[`${quantity().name}_final_mean`][s] : NaN;
    if (hasEnd()) row.append(element("td", number(value)));
    row.append(element("td", diverged < 0 ? "no" : `at step ${diverged}`));
    return row;
  });
  document.getElementById("runs").replaceChildren(head, ...rows);
  document.getElementById("code").textContent = rerunCode(s, arrays.seed[runs[0]]);
}

async function copy(code) {
  let done = false;
  document.getElementById("code").textContent = code;
  try {
    await navigator.clipboard.writeText(code);
    done = true;
  } catch {
    const area = element("textarea", code);
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
  }
  document.getElementById("copied").textContent = done ? "Copied." : "The browser does not allow copying: select the text instead.";
}
