// Calls of the server: its key, and errors as advice.

const KEY = "laconic-key";

export class Refusal extends Error {
  constructor(status, message, wait = 0) {
    super(message);
    this.status = status; // 0: no answer at all
    this.wait = wait; // seconds, if the server says so
  }
}

// A value in a storage that the browser may deny.
export function recalled(storage, name) {
  try {
    return window[storage].getItem(name);
  } catch {
    return null;
  }
}

export function remember(storage, name, value) {
  try {
    window[storage].setItem(name, value);
  } catch {
    // then it is not remembered
  }
}

export const useKey = (key) => remember("sessionStorage", KEY, key);

// The parsed answer; throws Refusal, or AbortError if `signal` says so.
export async function ask(path, { body, signal } = {}) {
  const headers = {};
  const key = recalled("sessionStorage", KEY);
  if (key) headers["x-laconic-key"] = key;
  if (body) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server cannot be reached. Is it still running?");
  }
  if (response.ok) return response.json();
  if (response.status === 401) document.dispatchEvent(new Event("key-wanted"));
  throw new Refusal(response.status, await advice(response), Number(response.headers.get("retry-after")) || 0);
}

async function advice(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered with status ${response.status}.`;
  }
}
