// Starts the page that the address names, after the login if there is one.
import { html, render } from "./html.js";
import { Live } from "./live.js";
import { Login } from "./login.js";
import { Groups } from "./groups.js";
import { Group } from "./group.js";
import { Letters } from "./letters.js";
import { read, session } from "./session.js";

const root = document.getElementById("app");
/** A part of the address; one that is not valid is shown as it is. @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

const [, first, namespace, name, part] = location.pathname.split("/").map(decoded);
const one = first === "groups";
const letters = one && part === "dead-letters";
const key = `${namespace}/${name}`;
const url = one ? `/api/v1/watch?groups=${encodeURIComponent(key)}` : "/api/v1/watch";

document.title = letters ? `Dead letters of ${key} – Kafka consumers` : one ? `${key} – Kafka consumers` : "Kafka consumers";

const frame = (me, content) => html`
  <a class="skip" href="#content">Skip to the content</a>
  <header>
    <nav aria-label="Pages">
      <a href="/" aria-current=${one ? null : "page"}>Groups</a>
      <a href="/docs/">REST API</a>
    </nav>
    ${me?.user &&
    html`<p class="user"><span>${me.user}</span> <button type="button" onClick=${() => login("")}>Log out</button></p>`}
  </header>
  <div id="content" tabindex="-1">${content}</div>`;

const page = (live, me) =>
  frame(me, letters ? html`<${Letters} name=${key} />` : one ? html`<${Group} live=${live} me=${me} name=${key} />` : html`<${Groups} live=${live} me=${me} />`);

let live = null;

/** Shows the page. @param {any} me what the server says of the user */
function open(me) {
  live?.close();
  const changed = (state) => {
    // A stream that was closed has nothing to say any more.
    if (live !== stream) return;
    if (state.problem?.status === 401) login(state.problem.message);
    else render(page(state, me), root);
  };
  const stream = (live = new Live(url, changed));
  changed(stream.state);
}

/** Forgets the token and asks for one. @param {string} why */
function login(why) {
  live?.close();
  live = null;
  session.token = null;
  render(frame(null, html`<${Login} why=${why} onLogin=${open} />`), root);
}

/** Asks who the user is, until the server answers. */
async function start() {
  try {
    open(await read("/api/v1/me"));
  } catch (error) {
    if (error.status === 401) return login(session.token ? error.message : "");
    const text = error.status ? error.message : "The server does not answer.";
    render(frame(null, html`<main><p class="bad" role="alert">${text} Trying again …</p></main>`), root);
    setTimeout(start, 3000);
  }
}

root.replaceChildren();
start();
