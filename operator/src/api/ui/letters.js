// The page with the dead letters of a group: filters, counts by error, a list, the newest first, and one record.
import { html, Component } from "./html.js";
import { number, time } from "./format.js";
import { Letter } from "./pretty.js";
import { read } from "./session.js";

const FIELDS = ["search", "stage", "component", "class", "partition", "from", "to"];
const STAGES = ["decode", "transform", "write"];

/** A time of the address as an input has it, in the time zone of the user; empty if there is none. */
function local(text) {
  const date = new Date(text);
  if (!text || Number.isNaN(date.getTime())) return "";
  return new Date(date.getTime() - date.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}

const key = (it) => `${it.partition}-${it.offset}`;

export class Letters extends Component {
  constructor(props) {
    super(props);
    const query = new URLSearchParams(location.search);
    const filters = Object.fromEntries(FIELDS.map((name) => [name, query.get(name) ?? ""]));
    const place = /^(\d+)-(\d+)$/.exec(query.get("record") ?? "");
    this.state = {
      filters,
      // What the form says, which is asked for when it is sent.
      typed: filters,
      open: place && { partition: place[1], offset: place[2] },
      pages: [], busy: false, problem: null,
    };
  }

  componentDidMount() {
    this.load(null);
  }

  componentWillUnmount() {
    this.current = null;
  }

  group() {
    return this.props.name.split("/").map(encodeURIComponent).join("/");
  }

  /** The filters are in the address, so that a link shows the same. */
  remember() {
    const { filters, open } = this.state;
    const query = new URLSearchParams(FIELDS.filter((name) => filters[name]).map((name) => [name, filters[name]]));
    if (open) query.set("record", key(open));
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  }

  /** Loads the first page, or an older one. @param {string|null} cursor */
  async load(cursor) {
    const mine = (this.current = {});
    this.setState(cursor ? { busy: true, problem: null } : { busy: true, problem: null, pages: [] });
    const { filters } = this.state;
    const query = new URLSearchParams(FIELDS.filter((name) => filters[name]).map((name) => [name, filters[name]]));
    if (cursor) query.set("cursor", cursor);
    try {
      const page = await read(`/api/v1/groups/${this.group()}/dead-letters?${query}`);
      if (this.current === mine) this.setState(({ pages }) => ({ pages: [...pages, page], busy: false }));
    } catch (error) {
      const problem = error.status ? error.message : `No answer from the server: ${error.message}`;
      if (this.current === mine) this.setState({ problem, busy: false });
    }
  }

  /** Asks for other dead letters. @param {any} filters */
  show(filters) {
    this.setState({ filters, typed: filters }, () => {
      this.remember();
      this.load(null);
    });
  }

  /** @param {any} open */
  open(open) {
    this.setState({ open }, () => this.remember());
  }

  render({ name }, { filters, typed, open, pages, busy, problem }) {
    const items = pages.flatMap((page) => page.items);
    const last = pages.at(-1);
    const typing = (field) => (event) => this.setState({ typed: { ...typed, [field]: event.target.value } });
    const typingTime = (field) => (event) => {
      const date = new Date(event.target.value);
      this.setState({ typed: { ...typed, [field]: Number.isNaN(date.getTime()) ? "" : date.toISOString() } });
    };
    const filtered = FIELDS.some((field) => filters[field]);
    return html`<main>
      <p><a href=${`/groups/${this.group()}`}>${name}</a></p>
      <h1>Dead letters of ${name}</h1>
      ${last && html`<p class="note">Topic <code>${last.topic}</code>, the newest first. Times are those of the records that failed.</p>`}
      <form class="fields" onSubmit=${(event) => { event.preventDefault(); this.show(typed); }}>
        <label>Text <input type="search" value=${typed.search} maxlength="500" onInput=${typing("search")} /></label>
        <label>Stage <select value=${typed.stage} onChange=${typing("stage")}>
          <option value="">All</option>${STAGES.map((stage) => html`<option value=${stage}>${stage}</option>`)}
        </select></label>
        <label>Component <input value=${typed.component} maxlength="300" onInput=${typing("component")} /></label>
        <label>Error class <input value=${typed.class} maxlength="300" onInput=${typing("class")} /></label>
        <label>Partition <input type="number" min="0" step="1" value=${typed.partition} onInput=${typing("partition")} /></label>
        <label>From <input type="datetime-local" step="1" value=${local(typed.from)} onChange=${typingTime("from")} /></label>
        <label>To <input type="datetime-local" step="1" value=${local(typed.to)} onChange=${typingTime("to")} /></label>
        <button type="submit">Show</button>
        ${filtered && html`<button type="button" onClick=${() => this.show(Object.fromEntries(FIELDS.map((field) => [field, ""])))}>Show all</button>`}
      </form>
      <p role="status" class=${problem ? "bad" : "note"}>${problem ?? said(pages, items, busy, filtered)}</p>
      ${last?.unreadablePartitions.map((it) => html`<p class="bad" key=${it.partition}>Partition ${it.partition} cannot be read now: ${it.why}.</p>`)}
      ${pages[0]?.errors.length > 0 && html`<${Errors} page=${pages[0]} onShow=${(more) => this.show({ ...filters, ...more })} />`}
      ${items.length > 0 && html`<${List} items=${items} onOpen=${(it) => this.open({ partition: it.partition, offset: it.offset })} />`}
      ${(last?.nextCursor || (problem && pages.length > 0)) &&
      html`<div class="buttons"><button type="button" aria-disabled=${busy ? "true" : "false"}
        onClick=${() => !busy && this.load(last.nextCursor)}>Load older ones</button></div>`}
      ${problem && pages.length === 0 &&
      html`<div class="buttons"><button type="button" onClick=${() => this.load(null)}>Try again</button></div>`}
      ${open && html`<${Letter} key=${key(open)} group=${this.group()} place=${open} onClose=${() => this.open(null)} />`}
    </main>`;
  }
}

/** One sentence about what is shown. */
function said(pages, items, busy, filtered) {
  if (busy) return "Loading …";
  const last = pages.at(-1);
  if (!last) return "";
  const looked = pages.reduce((sum, page) => sum + page.lookedAt, 0);
  const which = filtered ? "that match " : "";
  if (items.length === 0 && last.nextCursor)
    return `None of the newest ${number(looked)} dead letters match; there are older ones.`;
  if (items.length === 0) return filtered ? "No dead letter matches." : "There are no dead letters.";
  const ended = last.partial && last.unreadablePartitions.length === 0;
  const partial = ended ? " The time for one request ended before the list was full; load older ones to continue." : "";
  return `${number(items.length)} dead letters ${which}are shown${last.nextCursor ? "; there may be older ones" : ", which are all"}.${partial}`;
}

/** How often each error occurs among the newest. */
function Errors({ page, onShow }) {
  const most = Math.max(...page.errors.map((it) => it.count));
  const shown = (it) => ({ stage: it.stage ?? "", component: it.component ?? "", class: it.class ?? "" });
  return html`<section>
    <h2 id="errors">Errors</h2>
    <p class="note">Among the newest ${number(page.lookedAt)} dead letters that were looked at.</p>
    <div class="scroll" tabindex="0" role="region" aria-label="Errors"><table class="errors">
      <caption class="hidden">Errors</caption>
      <thead><tr><th scope="col" class="numeric">Number</th><th scope="col">Error</th><th scope="col">Message, without numbers and texts</th></tr></thead>
      <tbody>${page.errors.slice(0, 10).map(
        (it, index) => html`<tr key=${index}>
          <td class="numeric">${number(it.count)}<div class="bar" aria-hidden="true" style=${{ width: `${(100 * it.count) / most}%` }}></div></td>
          <td>${it.class === null && it.component === null
            ? "unknown"
            : html`<button type="button" class="sort" onClick=${() => onShow(shown(it))}>${[it.class, it.stage, it.component].filter(Boolean).join(", ")}</button>`}</td>
          <td class="text">${it.shape ?? ""}</td>
        </tr>`,
      )}</tbody>
    </table></div>
  </section>`;
}

const List = ({ items, onOpen }) => html`<section>
  <h2 id="list">Records</h2>
  <div class="scroll" tabindex="0" role="region" aria-label="Records"><table>
    <caption class="hidden">Records</caption>
    <thead><tr>
      <th scope="col">Partition and offset</th><th scope="col">Time</th><th scope="col">Record</th><th scope="col">Error</th>
      <th scope="col">Message</th><th scope="col" class="numeric">Attempts</th><th scope="col" class="numeric">Bytes</th>
    </tr></thead>
    <tbody>${items.map((it) =>
      it.unreadable !== null
        ? html`<tr key=${key(it)}><th scope="row">${it.partition}: ${it.unreadable.firstOffset} to ${it.offset}</th>
            <td>${time(it.timestamp)}</td><td class="text bad" colspan="5">These records cannot be read: ${it.unreadable.why}</td></tr>`
        : html`<tr key=${key(it)}>
            <th scope="row"><button type="button" class="sort" onClick=${() => onOpen(it)}>${it.partition}: ${it.offset}<span class="hidden"> open</span></button></th>
            <td>${time(it.timestamp)}</td>
            <td class="text">${it.origin ? `${it.origin.topic}-${it.origin.partition} at ${it.origin.offset}` : it.noOrigin}</td>
            <td>${[it.class, it.stage, it.component].filter(Boolean).join(", ") || "unknown"}</td>
            <td class="text">${it.message ?? ""}${it.missing !== null && html` <em>(parts of the record are missing)</em>`}</td>
            <td class="numeric">${it.attempts === null ? "–" : number(it.attempts)}</td>
            <td class="numeric">${it.valueSize === null ? "null" : number(it.valueSize)}</td>
          </tr>`,
    )}</tbody>
  </table></div>
</section>`;
