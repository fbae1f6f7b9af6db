// History of a group as a chart, with the same numbers as a table.
import { html, Component } from "./html.js";
import { compact, time } from "./format.js";
import { read } from "./session.js";

/** Each with its length in seconds, and the time between two reads in milliseconds. */
const RANGES = [
  ["10 minutes", 600, 2000],
  ["1 hour", 3600, 15000],
  ["6 hours", 21600, 15000],
  ["7 days", 604800, 60000],
];
/** The clock of this machine may be a little behind: a range must not ask for more than a ring has. */
const SLACK = 10;

/** Metrics by unit: values of different units never share an axis. */
const SETS = {
  Lag: [["lag", "Lag (records)", "--series-1"]],
  Rates: [
    ["in", "In (records/s)", "--series-1"],
    ["done", "Done (records/s)", "--series-2"],
  ],
  Workers: [["replicas", "Workers", "--series-1"]],
};

export class Chart extends Component {
  constructor(props) {
    super(props);
    this.state = { range: 0, set: "Lag", points: null, failed: null };
    this.drawAgain = () => this.draw(true);
  }

  componentDidMount() {
    this.load();
    this.resized = new ResizeObserver(() => this.plot?.setSize(this.size()));
    this.resized.observe(this.box);
    this.theme = matchMedia("(prefers-color-scheme: dark)");
    this.theme.addEventListener("change", this.drawAgain);
  }

  componentWillUnmount() {
    clearTimeout(this.timer);
    this.asked += 1;
    this.resized.disconnect();
    this.theme.removeEventListener("change", this.drawAgain);
    this.plot?.destroy();
  }

  async load() {
    clearTimeout(this.timer);
    const [, seconds, pause] = RANGES[this.state.range];
    // A later request, and the end of the page, make this one void.
    const asked = (this.asked = (this.asked ?? 0) + 1);
    try {
      const since = new Date(Date.now() - (seconds - SLACK) * 1000).toISOString();
      const answer = await read(`/api/v1/groups/${this.props.path}/series?since=${since}`);
      if (asked !== this.asked) return;
      this.setState({ points: answer, failed: null }, () => this.draw(false));
    } catch (error) {
      if (asked !== this.asked) return;
      this.setState({ failed: error.message });
    }
    this.timer = setTimeout(() => this.load(), pause);
  }

  size() {
    return { width: Math.max(240, this.box.clientWidth), height: 220 };
  }

  draw(fresh) {
    const { points, set } = this.state;
    if (!points || !this.box || typeof uPlot === "undefined") return;
    const metrics = SETS[set];
    const data = [points.time, ...metrics.map(([name]) => points[name] ?? points.time.map(() => null))];
    if (this.plot && !fresh) {
      this.plot.setData(data);
      return;
    }
    this.plot?.destroy();
    const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const axis = { stroke: color("--text"), grid: { stroke: color("--line") }, ticks: { stroke: color("--line") } };
    const at = (seconds) => time(new Date(seconds * 1000).toISOString());
    const series = metrics.map(([, label, variable], index) => ({
      label,
      stroke: color(variable),
      width: 2,
      dash: index ? [6, 4] : undefined,
      value: (_, value) => compact(value),
    }));
    const options = {
      ...this.size(),
      scales: { y: { range: (_, __, high) => [0, Math.max(1, (high ?? 0) * 1.1)] } },
      axes: [{ ...axis, space: 140, values: (_, values) => values.map(at) }, { ...axis, size: 64, values: (_, values) => values.map(compact) }],
      series: [{ label: "Time", value: (_, seconds) => (seconds == null ? "–" : at(seconds)) }, ...series],
    };
    this.plot = new uPlot(options, data, this.box);
  }

  render(_, { range, set, points, failed }) {
    const metrics = SETS[set];
    const last = (name) => points?.[name]?.at(-1);
    const summary = metrics.map(([name, label]) => `${label}: ${compact(last(name))} now`).join(", ");
    const rows = points ? points.time.map((at, index) => [at, index]).slice(-20).reverse() : [];
    return html`
      <div class="filters">
        <label>Show <select value=${set} onChange=${(event) => this.setState({ set: event.target.value }, this.drawAgain)}>
          ${Object.keys(SETS).map((name) => html`<option value=${name}>${name}</option>`)}
        </select></label>
        <label>Last <select value=${range} onChange=${(event) => this.setState({ range: Number(event.target.value) }, () => this.load())}>
          ${RANGES.map(([label], index) => html`<option value=${index}>${label}</option>`)}
        </select></label>
      </div>
      <div class="chart" role="img" aria-label=${`Chart. ${summary}`} ref=${(box) => (this.box = box)}></div>
      ${failed && html`<p class="bad">The history cannot be loaded: ${failed}</p>`}
      ${points && points.time.length < 2 && html`<p class="empty">The history begins with the start of this program; a line needs up to half a minute.</p>`}
      <details>
        <summary>The last 20 points as a table</summary>
        <table>
          <caption class="hidden">History</caption>
          <thead><tr><th scope="col">Time</th>${metrics.map(([, label]) => html`<th scope="col" class="numeric">${label}</th>`)}</tr></thead>
          <tbody>
            ${rows.map(
              ([at, index]) => html`<tr key=${at}>
                <th scope="row">${time(new Date(at * 1000).toISOString())}</th>
                ${metrics.map(([name]) => html`<td class="numeric">${compact(points[name]?.[index])}</td>`)}
              </tr>`,
            )}
          </tbody>
        </table>
      </details>`;
  }
}
