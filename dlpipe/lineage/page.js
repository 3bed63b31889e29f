"use strict";
// Draws the graph that stands in the page; texts are set as texts, never as markup.
const {nodes, edges} = JSON.parse(document.getElementById("graph").textContent);
const WIDTH = 212, HEIGHT = 42, BESIDE = 56, BELOW = 12, EDGE = 20, PADDING = 10, SMALLEST = 0.75, LOW = 0.7;
const svg = document.querySelector("svg"), details = document.getElementById("details");
const page = document.getElementById("page"), drawing = document.getElementById("drawing");
const opened = new Set();
let chosen = null;

// A box stands for one node, or for all of a group that is not open.
function makeBoxes() {
  const boxes = new Map();
  nodes.forEach((node, number) => {
    const folded = node.group !== null && !opened.has(node.group);
    const key = folded ? "g" + node.group : "n" + number;
    if (!boxes.has(key)) boxes.set(key, {key, layer: node.layer, members: [], group: folded ? node.group : null});
    const box = boxes.get(key);
    box.members.push(number);
    box.layer = Math.max(box.layer, node.layer);
  });
  return boxes;
}

function place(boxes, links) {
  const columns = [];
  for (const box of boxes.values()) (columns[box.layer] = columns[box.layer] || []).push(box);
  const used = columns.filter(Boolean);
  used.forEach((column, at) => column.forEach((box, row) => { box.x = at; box.row = row; }));
  for (let round = 0; round < 4; round++)
    for (const column of round % 2 ? [...used].reverse() : used) {
      for (const box of column) {
        const others = links.filter(link => link.from === box || link.to === box)
          .map(link => (link.from === box ? link.to : link.from).row);
        box.middle = others.length ? others.reduce((sum, row) => sum + row, 0) / others.length : box.row;
      }
      column.sort((a, b) => a.middle - b.middle).forEach((box, row) => { box.row = row; });
    }
  const tallest = Math.max(...used.map(column => column.length));
  used.forEach((column, at) => column.forEach(box => {
    box.left = EDGE + at * (WIDTH + BESIDE);
    box.top = EDGE + (box.row + (tallest - column.length) / 2) * (HEIGHT + BELOW);
  }));
  return {width: 2 * EDGE + used.length * (WIDTH + BESIDE) - BESIDE, height: 2 * EDGE + tallest * (HEIGHT + BELOW)};
}

const measure = (width, size) => Math.min(1, Math.max(SMALLEST, width / size.width));

// All columns are in view where that leaves letters that can be read: details go below a drawing that is wide and low.
function fit(size) {
  page.classList.remove("low");
  const high = size.height * measure(page.clientWidth, size);
  page.classList.toggle("low", size.width > drawing.clientWidth && high < page.clientHeight * LOW);
  const scale = measure(drawing.clientWidth, size);
  svg.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  svg.setAttribute("width", Math.floor(size.width * scale));
  svg.setAttribute("height", Math.floor(size.height * scale));
}

function make(name, attributes, parent, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

// What does not fit into its box loses letters in the middle: both ends tell things apart.
function cut(drawn) {
  const text = drawn.textContent;
  for (let left = text.length - 1; left > 2 && drawn.getComputedTextLength() > WIDTH - 2 * PADDING; left--)
    drawn.textContent = text.slice(0, Math.ceil(left / 2)) + "…" + text.slice(text.length - Math.floor(left / 2));
}
const spell = box => box.group === null ? nodes[box.members[0]].label
  : `${box.members.length} × ${nodes[box.members[0]].kind}`;

function reach(start, links, near, far) {
  const found = new Set([start]), waiting = [start];
  while (waiting.length) {
    const box = waiting.pop();
    for (const link of links)
      if (link[near] === box && !found.has(link[far])) { found.add(link[far]); waiting.push(link[far]); }
  }
  return found;
}

function draw() {
  const boxes = makeBoxes(), of = new Map();
  for (const box of boxes.values()) for (const number of box.members) of.set(number, box);
  const links = [...new Map(edges.map(edge => {
    const link = {from: of.get(edge.from), to: of.get(edge.to)};
    return [link.from.key + " " + link.to.key, link];
  })).values()].filter(link => link.from !== link.to);
  fit(place(boxes, links));
  svg.replaceChildren();
  const current = chosen === null ? null : of.get(chosen);
  const up = current ? reach(current, links, "to", "from") : new Set();
  const down = current ? reach(current, links, "from", "to") : new Set();
  svg.classList.toggle("chosen-any", current !== null);
  for (const link of links) {
    const x1 = link.from.left + WIDTH, y1 = link.from.top + HEIGHT / 2, x2 = link.to.left, y2 = link.to.top + HEIGHT / 2;
    const bend = Math.max(30, Math.abs(x2 - x1) / 2);
    const way = up.has(link.from) && up.has(link.to) ? " up" : down.has(link.from) && down.has(link.to) ? " down" : "";
    make("path", {class: "edge" + way, d: `M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`}, svg);
  }
  for (const box of boxes.values()) {
    const node = nodes[box.members[0]];
    const words = ["box", box.group === null ? "" : "group", node.root ? "root" : "", node.gone ? "gone" : "",
      box === current ? "chosen" : up.has(box) ? "up" : down.has(box) ? "down" : ""];
    const drawn = make("g", {class: words.filter(Boolean).join(" "), tabindex: 0, role: "button",
      transform: `translate(${box.left},${box.top})`}, svg);
    make("title", {}, drawn, box.group === null ? node.id : spell(box));
    make("rect", {width: WIDTH, height: HEIGHT}, drawn);
    make("text", {x: PADDING, y: 16, class: "kind"}, drawn, box.group === null ? node.kind : "click to open");
    cut(make("text", {x: PADDING, y: 33}, drawn, spell(box)));
    const act = () => {
      if (box.group === null) choose(box.members[0]);
      else { opened.add(box.group); draw(); }
    };
    drawn.addEventListener("click", act);
    drawn.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") act(); });
  }
  return of;
}

function choose(number) {
  if (nodes[number].group !== null) opened.add(nodes[number].group);
  chosen = number;
  draw();
  describe(number);
}

function add(parent, name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  parent.append(made);
  return made;
}

function list(title, found, result) {
  if (!found.length) return;
  add(details, "h3", title);
  const lines = add(details, "ul");
  for (const [edge, other] of found) {
    const line = add(lines, "li"), note = edge.note ? ` (${edge.note})` : "";
    if (!result) line.append(`${edge.how} `);
    add(line, "button", nodes[other].label).addEventListener("click", () => choose(other));
    line.append(result ? ` ${edge.how} it${note}` : note);
  }
}

function describe(number) {
  const node = nodes[number];
  details.replaceChildren();
  add(details, "h2", node.label);
  add(details, "p", [node.kind, node.at].filter(Boolean).join(", "), "faint");
  if (node.about) add(details, "p", node.about);
  if (node.gone) add(details, "p", `gone: ${node.gone}`, "bad");
  for (const problem of node.unknown) add(details, "p", `unknown: ${problem}`, "bad");
  add(details, "p", node.id, "faint");
  list("What it came of", edges.filter(edge => edge.to === number).map(edge => [edge, edge.from]), false);
  list("What came of it", edges.filter(edge => edge.from === number).map(edge => [edge, edge.to]), true);
  if (node.cut) add(details, "p", "More is known: pass a larger --depth.", "faint");
  if (node.group !== null) add(details, "button", "Fold what is alike")
    .addEventListener("click", () => { opened.delete(node.group); chosen = null; details.replaceChildren(); draw(); });
}

choose(nodes.findIndex(node => node.root));
window.addEventListener("resize", draw);
document.querySelector(".chosen").scrollIntoView({block: "center", inline: "center"});
