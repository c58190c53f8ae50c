// The libraries draw the tables and figures; this script starts them.
const bundle = document.getElementById("datatables").textContent;
const source = URL.createObjectURL(new Blob([bundle], { type: "text/javascript" }));
const { default: DataTable } = await import(source);

const board = new DataTable("#board", {
  autoWidth: false,
  order: [],
  pageLength: 25,
  lengthMenu: [[10, 25, 50, -1], [10, 25, 50, "all"]],
  columnDefs: [{ targets: "high-first", orderSequence: ["desc", "asc"] }],
  layout: { topStart: "search", topEnd: "pageLength", bottomStart: "info", bottomEnd: "paging" },
  language: { search: "Filter pairs", lengthMenu: "Show _MENU_ pairs", info: "_START_ to _END_ of _TOTAL_ pairs" },
});
document.getElementById("family")?.addEventListener("change", (event) => {
  board.column(".family").search(event.target.value, { exact: event.target.value !== "" }).draw();
});

const drawn = new Set();
function draw(panel) {
  if (drawn.has(panel)) return;
  drawn.add(panel);
  for (const figure of panel.querySelectorAll(".figure")) {
    Bokeh.embed.embed_item(JSON.parse(figure.querySelector("script").textContent), figure);
  }
}
function show(name) {
  for (const panel of document.querySelectorAll(".panel")) panel.hidden = panel.id !== `panel-${name}`;
  draw(document.getElementById(`panel-${name}`));
}
for (const tab of document.querySelectorAll("input[name=tab]")) {
  tab.addEventListener("change", () => show(tab.value));
}
// A browser that reloads the page keeps the chosen tab.
show(document.querySelector("input[name=tab]:checked")?.value ?? "score");

const sure = document.getElementById("sure");
if (sure) draw(sure);

// Opening a pair moves the keyboard focus to it.
function visit() {
  document.querySelector("article:target")?.focus();
}
addEventListener("hashchange", visit);
visit();
document.documentElement.dataset.ready = "yes";
