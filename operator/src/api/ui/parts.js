// Small parts that several pages use.
import { html, Component } from "./html.js";
import { duration, time } from "./format.js";

const ICONS = { True: "✓", False: "✕", Unknown: "?" };
const WORDS = { True: "Ready", False: "Not ready", Unknown: "Unknown" };

/** A status as icon and word; color only underlines it. */
export const Status = ({ status, words = WORDS }) =>
  html`<span class=${`status ${status}`}><span aria-hidden="true">${ICONS[status] ?? "?"}</span> ${words[status] ?? status}</span>`;

/** A value; one that is not known says why. */
export function Value({ of, field, show }) {
  const value = of[field];
  if (value != null) return html`<span>${show(value)}</span>`;
  const why = of.unknown?.[field] ?? "not known";
  return html`<span class="unknown" title=${why}>–<span class="hidden"> unknown: ${why}</span></span>`;
}

/** Says that the numbers are not live, and how old they are. */
export function Connection({ live }) {
  const { status, receivedAt, problem } = live;
  const age = receivedAt === null ? null : (Date.now() - receivedAt) / 1000;
  return html`
    <div role="status" class=${`connection ${status}`}>
      ${status === "lost" && !problem && html`<strong>Connection lost.</strong> Trying to reconnect.`}
      ${status === "lost" && problem && html`<strong>No live data.</strong> ${problem.message}.`}
    </div>
    ${status === "lost" &&
    age !== null &&
    html`<p class="connection lost age">The numbers are ${duration(age)} old, from ${time(new Date(receivedAt).toISOString())}.</p>`}`;
}

/** Says that this operator knows less than the leader. */
export const Standby = ({ me }) =>
  me?.role === "standby" &&
  html`<p class="note">This operator stands by: it shows the status of the resources, without rates and offsets.</p>`;

/** A column header that sorts. */
export const Sort = ({ label, name, sort, onSort, numeric }) => {
  const down = sort === `-${name}`;
  const active = down || sort === name;
  return html`<th
    scope="col"
    class=${numeric ? "numeric" : ""}
    aria-sort=${active ? (down ? "descending" : "ascending") : "none"}
  >
    <button type="button" class="sort" onClick=${() => onSort(active && !down ? `-${name}` : name)}>
      ${label}<span aria-hidden="true">${active ? (down ? " ↓" : " ↑") : ""}</span>
    </button>
  </th>`;
};

const ROW_PX = 45;
/** Longer tables draw only the rows that can be seen. */
const WINDOW = 120;

/** Rows of a table body; `row` gets the item and its index. */
export class Rows extends Component {
  constructor(props) {
    super(props);
    this.state = { first: 0 };
    this.scrolled = () => {
      const top = this.base?.closest?.("table")?.getBoundingClientRect().top ?? 0;
      const first = Math.max(0, Math.floor(-top / ROW_PX) - 30);
      if (Math.abs(first - this.state.first) > 10 || first === 0) this.setState({ first });
    };
  }
  componentDidMount() {
    addEventListener("scroll", this.scrolled, { passive: true });
  }
  componentWillUnmount() {
    removeEventListener("scroll", this.scrolled);
  }
  render({ items, row }) {
    if (items.length <= WINDOW) return html`<tbody>${items.map((item, index) => row(item, index))}</tbody>`;
    const first = Math.min(this.state.first, items.length - WINDOW);
    const space = (rows) =>
      rows > 0 && html`<tr aria-hidden="true" class="space"><td style=${{ height: `${rows * ROW_PX}px` }}></td></tr>`;
    return html`<tbody class="fixed">
      ${space(first)}${items.slice(first, first + WINDOW).map((item, index) => row(item, first + index))}${space(items.length - first - WINDOW)}
    </tbody>`;
  }
}

/** Sorts by a field; unknown values come last in both directions. */
export function sorted(items, sort, value = (item, name) => item[name]) {
  const down = sort.startsWith("-");
  const name = down ? sort.slice(1) : sort;
  const compare = (one, other) => {
    const [a, b] = [value(one, name), value(other, name)];
    if (a == null || b == null) return (a == null) - (b == null);
    const order = typeof a === "string" ? a.localeCompare(b) : a - b;
    return down ? -order : order;
  };
  return [...items].sort(compare);
}
