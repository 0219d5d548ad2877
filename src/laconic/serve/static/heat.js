// A text as a heat map: kept words marked, the stronger the more they were wanted; dropped ones struck through.

const LONGEST = 50_000; // characters drawn; all are copied
const LEVELS = 4;

// Draws one text. `spans` and `units` are the server's, in code points; `fixed`: it was not to change.
export function draw(into, text, spans, units, fixed) {
  const at = positions(text);
  const shown = text.length > LONGEST ? LONGEST : text.length;
  into.classList.toggle("prose", !/[ \t]{2}|[\r\n][ \t]|^\s/.test(text));
  const level = fixed ? () => 0 : levels(spans, units);
  for (const run of runs(spans, units, level)) {
    const piece = text.slice(at(run.start), Math.min(at(run.end), shown));
    const blank = /^\s*/.exec(piece)[0];
    into.append(blank, styled(piece.slice(blank.length), run));
    if (at(run.end) >= shown) break;
  }
  if (shown < text.length) into.append(note(`The first ${shown.toLocaleString("en")} characters are shown; a copy has all.`));
}

// The kept text.
export function kept(text, spans) {
  const at = positions(text);
  return spans.map(([start, end]) => text.slice(at(start), at(end))).join("");
}

function styled(piece, run) {
  if (!piece || (run.kept && !run.level)) return piece;
  const node = document.createElement(run.kept ? "mark" : "del");
  if (run.kept) node.className = `k${run.level}`;
  node.textContent = piece;
  return node;
}

export function note(words) {
  const node = document.createElement("p");
  node.className = "hint";
  node.textContent = words;
  return node;
}

// Code points to indices of a JavaScript string, where pairs of surrogates are two.
function positions(text) {
  if (!/[\ud800-\udbff][\udc00-\udfff]/.test(text)) return (k) => k;
  const indices = [];
  let index = 0;
  for (const character of text) {
    indices.push(index);
    index += character.length;
  }
  indices.push(index);
  return (k) => indices[k];
}

// Neighbours that look alike as one: { start, end, kept, level }.
function runs(spans, units, level) {
  const found = [];
  let k = 0;
  let at = 0;
  for (const [end, score] of units) {
    while (at < end) {
      while (k < spans.length && spans[k][1] <= at) k++;
      const kept = k < spans.length && spans[k][0] <= at;
      const until = Math.min(end, k < spans.length ? spans[k][kept ? 1 : 0] : end);
      const run = { start: at, end: until, kept, level: kept ? level(score) : 0 };
      const last = found.at(-1);
      if (last && last.kept === kept && last.level === run.level) last.end = until;
      else found.push(run);
      at = until;
    }
  }
  return found;
}

// Scores of methods are not alike; their ranks among what was kept are.
function levels(spans, units) {
  const scores = keptScores(spans, units).sort((a, b) => a - b);
  const edges = [1, 2, 3].map((k) => scores[Math.ceil((k * scores.length) / LEVELS) - 1]);
  return (score) => (score === null ? 1 : 1 + edges.filter((edge) => score > edge).length);
}

function keptScores(spans, units) {
  let k = 0;
  const found = [];
  for (const [end, score] of units) {
    while (k < spans.length && spans[k][1] < end) k++;
    if (score !== null && k < spans.length && spans[k][0] < end) found.push(score);
  }
  return found;
}
