// Starts the page that the address names.
import { html, render } from "./html.js";
import { Live } from "./live.js";
import { Groups } from "./groups.js";
import { Group } from "./group.js";

const root = document.getElementById("app");
/** A part of the address; one that is not valid is shown as it is. @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

const [, first, namespace, name] = location.pathname.split("/").map(decoded);
const one = first === "groups";
const key = `${namespace}/${name}`;

document.title = one ? `${key} – Kafka consumers` : "Kafka consumers";

const page = (live) => html`
  <a class="skip" href="#content">Skip to the content</a>
  <header>
    <nav aria-label="Pages">
      <a href="/" aria-current=${one ? null : "page"}>Groups</a>
      <a href="/docs/">REST API</a>
    </nav>
  </header>
  <div id="content" tabindex="-1">
    ${one ? html`<${Group} live=${live} name=${key} />` : html`<${Groups} live=${live} />`}
  </div>`;

root.replaceChildren();
const url = one ? `/api/v1/watch?groups=${encodeURIComponent(key)}` : "/api/v1/watch";
const live = new Live(url, (state) => render(page(state), root));
render(page(live.state), root);
