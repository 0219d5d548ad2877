// One method's result: figures, the heat map, a button to copy.

import { Refusal, ask } from "./api.js";
import { draw, kept, note } from "./heat.js";

const BLIND = ["tfidf", "stopwords", "lead", "random"]; // methods that read no questions
const RETRIES = 5; // when the server is busy
const count = new Intl.NumberFormat("en");
const dollars = (value) =>
  new Intl.NumberFormat("en", { style: "currency", currency: "USD", maximumFractionDigits: value < 0.1 ? 4 : 2 }).format(value);

let made = 0;

export class Card {
  constructor(method, hooks) {
    this.hooks = hooks; // changed, removed, start, told
    this.node = document.getElementById("card").content.firstElementChild.cloneNode(true);
    this.method = this.find(".method");
    this.method.value = method;
    this.method.id = `method-${++made}`;
    this.find("header label").htmlFor = this.method.id;
    this.method.addEventListener("change", () => hooks.changed(this));
    this.find(".remove").addEventListener("click", () => hooks.removed(this));
    this.find(".start").addEventListener("click", () => hooks.start());
    this.find(".copy").addEventListener("click", () => this.copy());
    this.find(".trouble button").addEventListener("click", () => hooks.changed(this));
    this.showOnly(".empty");
  }

  find(selector) {
    return this.node.querySelector(selector);
  }

  // Asks anew; what was asked before is stale.
  async run(asked) {
    this.stop();
    this.asked = asked;
    if (!asked) return this.clear();
    const { signal } = (this.flight = new AbortController());
    this.node.setAttribute("aria-busy", "true");
    try {
      this.answer = await this.patiently(this.body(), signal);
      this.show();
    } catch (error) {
      if (signal.aborted) return;
      this.fail(error);
    }
    this.node.setAttribute("aria-busy", "false");
  }

  async patiently(body, signal, left = RETRIES) {
    try {
      return await ask("v1/compress", { body, signal });
    } catch (error) {
      if (error.status !== 503 || !left) throw error;
      this.showTrouble("The server is busy. Waiting for it …", false);
      await new Promise((done) => setTimeout(done, 1000 * (error.wait || 1)));
      signal.throwIfAborted();
      return this.patiently(body, signal, left - 1);
    }
  }

  stop() {
    this.flight?.abort();
    this.node.setAttribute("aria-busy", "false");
  }

  body() {
    const [method, model] = this.method.value.split(" ");
    const body = { ...this.asked.fields, ...(method && { method }), ...(model && { model }), scores: true };
    if (BLIND.includes(method)) delete body.question;
    return body;
  }

  get name() {
    return this.method.selectedOptions[0].textContent;
  }

  clear() {
    this.answer = null;
    this.showOnly(".empty");
  }

  fail(error) {
    if (!(error instanceof Refusal)) throw error;
    this.answer = null;
    this.showTrouble(error.message, error.status === 0 || error.status >= 500);
    this.hooks.told(`${this.name}: ${error.message}`);
  }

  showTrouble(words, again) {
    this.showOnly(".trouble");
    this.find(".trouble p").textContent = words;
    this.find(".trouble button").hidden = !again;
  }

  showOnly(...selectors) {
    for (const part of [".outcome", ".trouble", ".map", ".empty"]) this.find(part).hidden = !selectors.includes(part);
    this.find(".copy").hidden = !selectors.includes(".map");
  }

  show() {
    this.showOnly(".outcome", ".map");
    this.showFigures();
    this.showMap();
    const { tokens_before: before, tokens_after: after } = this.answer;
    this.hooks.told(`${this.name}: ${count.format(before)} tokens to ${count.format(after)}, ${this.share} per cent saved`);
  }

  get share() {
    const { tokens_before: before, tokens_after: after } = this.answer;
    return before ? Math.round((100 * (before - after)) / before) : 0;
  }

  showFigures() {
    if (!this.answer) return;
    const { tokens_before: before, tokens_after: after, rate, method, model, counter, seconds, met } = this.answer;
    const thousand = (this.hooks.price() * 1000) / 1e6; // dollars for a token in each of 1,000 calls
    this.find(".figures").replaceChildren(
      figure("Tokens", `${count.format(before)} → `, count.format(after)),
      figure("Saved", "", `${this.share} %`),
      figure("Saved per 1,000 calls", "", dollars((before - after) * thousand), ` of ${dollars(before * thousand)}`),
    );
    this.find(".bar span").style.inlineSize = `${100 * rate}%`;
    const by = [model || method, model && method !== "llmlingua2" ? `(${method})` : "", `in ${seconds.toFixed(2)} s,`];
    const blind = this.asked.fields.question && BLIND.includes(method) ? " It reads no question." : "";
    const over = met ? "" : " What must stay exceeds the budget.";
    this.find(".how").textContent = `${by.filter(Boolean).join(" ")} counted in ${counter}.${blind}${over}`;
  }

  showMap() {
    if (!this.answer) return;
    const map = this.find(".map");
    const { text, messages } = this.asked.fields;
    map.replaceChildren();
    map.classList.remove("prose");
    if (messages) this.showMessages(map, messages);
    else if (this.hooks.plain()) map.append(this.result() || note("Nothing is left."));
    else draw(map, text, this.answer.spans, this.answer.units, false);
  }

  showMessages(map, messages) {
    const parts = this.answer.parts.map((part, k) => ({ ...part, units: this.answer.units[k] }));
    messages.forEach((message, k) => {
      const own = parts.filter((part) => part.path[0] === k);
      map.append(heading(message.role, own));
      for (const part of own) {
        const node = document.createElement("div");
        const text = part.path.reduce((value, step) => value[step], messages);
        node.classList.toggle("code", /^(tool|function)$/.test(message.role) || part.path.length > 4); // a tool's answer
        if (this.hooks.plain()) node.append(kept(text, part.spans));
        else draw(node, text, part.spans, part.units, part.fixed);
        map.append(node);
      }
    });
  }

  // What is to be sent: the text, or the whole request.
  result() {
    const { answer, asked } = this;
    return answer.messages ? JSON.stringify(asked.whole(answer.messages), null, 2) : answer.text;
  }

  async copy() {
    const button = this.find(".copy");
    const done = await copied(this.result());
    button.textContent = done ? "Copied" : "Not allowed";
    this.hooks.told(button.textContent);
    setTimeout(() => (button.textContent = "Copy"), 2000);
  }
}

function figure(name, before, value, after = "") {
  const group = document.createElement("div");
  const term = document.createElement("dt");
  const data = document.createElement("dd");
  const strong = document.createElement("strong");
  term.textContent = name;
  strong.textContent = value;
  data.append(before, strong, after);
  group.append(term, data);
  return group;
}

// The role of a message, and what became of its texts.
function heading(role, parts) {
  const node = document.createElement("h3");
  node.textContent = role;
  const size = (list) => list.reduce((sum, [start, end]) => sum + end - start, 0);
  const open = parts.filter((part) => !part.fixed);
  const all = open.reduce((sum, part) => sum + (part.units.at(-1)?.[0] ?? 0), 0);
  const left = open.reduce((sum, part) => sum + size(part.spans), 0);
  const told = document.createElement("span");
  told.className = "hint";
  told.textContent = !parts.length ? "no text" : all === left ? "as it was" : `keeps ${Math.round((100 * left) / all)} % of its characters`;
  node.append(" ", told);
  return node;
}

// Pages that are not served securely have no clipboard; the old way works there.
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    const focused = document.activeElement;
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return done;
  }
}

export { count, figure };
