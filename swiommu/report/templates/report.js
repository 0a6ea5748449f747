"use strict";
(function () {
  const root = document.documentElement;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("swiommu-figures");
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // -- figures: their text and ground follow the page
  function theme(figure) {
    const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), automargin: true };
    const layout = structuredClone(figure.layout);
    layout.xaxis = Object.assign({}, axis, layout.xaxis);
    layout.yaxis = Object.assign({}, axis, layout.yaxis);
    return Object.assign(layout, {
      paper_bgcolor: colour("--page"),
      plot_bgcolor: layout.meta && layout.meta.free ? colour("--free") : colour("--page"),
      font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", size: 13, color: colour("--text") },
      hoverlabel: { bgcolor: colour("--page"), bordercolor: colour("--soft"), align: "left", font: { color: colour("--text"), size: 13 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--accent") },
      margin: { l: 56, r: 12, t: 26, b: 44 },
      showlegend: false,
      dragmode: "zoom",
    });
  }
  function outlined(figure) {
    for (const trace of figure.data) {
      if (trace.type === "bar") { trace.marker.line.color = colour("--page"); }
    }
    return figure.data;
  }
  // Buttons by name, so that a later Plotly can't add one: its "share" sends the chart, and so the trace, to a server.
  const buttons = [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]];
  const config = { responsive: true, displaylogo: false, plotlyServerURL: "", modeBarButtons: buttons };
  const linked = figures.filter((figure) => figure.linked);
  let following = false;

  function follow(source, change) {
    const range = change["xaxis.range[0]"] === undefined ? change["xaxis.range"] : [change["xaxis.range[0]"], change["xaxis.range[1]"]];
    const reset = change["xaxis.autorange"];
    if (following || (!range && !reset)) { return; }
    following = true;
    const others = linked.filter((figure) => figure.id !== source.id);
    Promise.all(others.map((figure) => Plotly.relayout(figure.id, { "xaxis.range": range || figure.layout.xaxis.range })))
      .finally(() => { following = false; });
  }
  function draw() {
    for (const figure of figures) { Plotly.react(figure.id, outlined(figure), theme(figure), config); }
  }
  if (window.Plotly) {
    draw();
    for (const figure of linked) {
      document.getElementById(figure.id).on("plotly_relayout", (change) => follow(figure, change));
    }
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    window.addEventListener("beforeprint", () => { root.classList.add("print"); draw(); });
    window.addEventListener("afterprint", () => { root.classList.remove("print"); draw(); });
  }

  for (const key of document.querySelectorAll(".keys button")) {
    key.addEventListener("click", () => {
      const shown = key.getAttribute("aria-pressed") !== "true";
      const traces = key.dataset.traces.split(",").map(Number);
      const figure = figures.find((each) => each.id === key.dataset.plot);
      for (const trace of traces) { figure.data[trace].visible = shown; }
      key.setAttribute("aria-pressed", String(shown));
      Plotly.restyle(key.dataset.plot, { visible: shown }, traces);
    });
  }

  // -- tables: a click on a heading sorts; what has no value stays last
  function sort(button) {
    const head = button.closest("th");
    const place = [...head.parentNode.children].indexOf(head) + 1;
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const other of head.parentNode.children) { other.setAttribute("aria-sort", "none"); }
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = head.closest("table").tBodies[0];
    const key = (row) => (row.cells[place] ? row.cells[place].dataset.key || "" : "");
    const sign = down ? -1 : 1;
    const rows = [...body.rows].sort((one, other) => {
      const [a, b] = [key(one), key(other)];
      if (a === "" || b === "") { return (a === "") - (b === ""); }
      return sign * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
    });
    body.append(...rows);
  }
  for (const button of document.querySelectorAll(".sortable th button")) {
    button.addEventListener("click", () => sort(button));
  }

  document.getElementById("save").addEventListener("click", () => {
    const text = JSON.stringify(read("swiommu-data"), null, 2);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "comparison.json";
    link.click();
    URL.revokeObjectURL(link.href);
  });
})();
