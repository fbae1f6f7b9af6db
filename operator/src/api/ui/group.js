// The page of one group.
import { html, Component } from "./html.js";
import { ago, compact, duration, number, time } from "./format.js";
import { Connection, Rows, Sort, Standby, Status, Value, sorted } from "./parts.js";
import { StateButtons } from "./state.js";
import { Chart } from "./chart.js";
import { read } from "./session.js";

const EVENTS_MS = 5000;
/** Events that the user may not see are asked for again after this long. */
const REFUSED_MS = 60000;
const CONDITION_WORDS = { True: "True", False: "False", Unknown: "Unknown" };
const NUMBERS = [
  ["Lag", "lag", number],
  ["In per second", "inPerSecond", compact],
  ["Done per second", "donePerSecond", compact],
  ["Catches up in", "catchUpSeconds", duration],
  ["Dead letters per minute", "deadLettersPerMinute", number],
  ["Finished", "finishedTotal", number],
];

export class Group extends Component {
  constructor(props) {
    super(props);
    this.state = { events: null, refused: null, sort: "partition" };
    this.quietUntil = 0;
  }

  componentDidMount() {
    this.loadEvents();
    this.timer = setInterval(() => this.loadEvents(), EVENTS_MS);
  }

  componentWillUnmount() {
    clearInterval(this.timer);
  }

  path() {
    return this.props.name.split("/").map(encodeURIComponent).join("/");
  }

  async loadEvents() {
    if (Date.now() < this.quietUntil) return;
    try {
      const { items } = await read(`/api/v1/groups/${this.path()}/events`);
      this.setState({ events: items, refused: null });
    } catch (error) {
      // Otherwise the lost stream says that the server does not answer.
      if (error.status !== 403) return;
      this.quietUntil = Date.now() + REFUSED_MS;
      this.setState({ refused: error.message });
    }
  }

  render({ live, me, name }, { events, refused, sort }) {
    const group = live.groups[name];
    if (!group) {
      return html`<main class=${live.status}>
        <h1>${name}</h1>
        <${Connection} live=${live} />
        ${live.receivedAt === null
          ? html`<p>${live.problem ? "" : live.status === "loading" ? "Loading …" : "The server has not answered yet."}</p>`
          : html`<p class="empty">There is no group ${name}. It may have been ${me.user ? "deleted" : "removed from its file"}. <a href="/">All groups</a></p>`}
      </main>`;
    }
    return html`<main class=${live.status}>
      <h1>${name}</h1>
      <${Connection} live=${live} />
      <${Standby} me=${me} />
      <p class="lead"><${Status} status=${group.ready} /> <strong>${group.reason}</strong><br />${group.message}</p>
      <${StateButtons} group=${group} disabled=${live.status !== "live"} />
      <dl class="numbers">
        ${NUMBERS.map(
          ([label, field, show]) => html`<div><dt>${label}</dt><dd><${Value} of=${group} field=${field} show=${show} /></dd></div>`,
        )}
        <div><dt>Workers</dt><dd><${Value} of=${group} field="workers" show=${number} />/<${Value} of=${group} field="workersDesired" show=${number} /></dd></div>
      </dl>
      <p class="note">${group.workersReason}</p>
      ${group.deadLetterTopic && html`<p><a href=${`/groups/${this.path()}/dead-letters`}>Look at the dead letters</a></p>`}
      <${Stalled} partitions=${group.partitionList} />
      <section><h2 id="history">History</h2><${Chart} path=${this.path()} /></section>
      <${Conditions} conditions=${group.conditions} />
      <${Partitions} partitions=${group.partitionList} sort=${sort} onSort=${(next) => this.setState({ sort: next })} />
      <${Workers} workers=${group.workerList} group=${group} />
      <${Events} events=${events} refused=${refused} />
      <section>
        <h2 id="about">About</h2>
        <dl class="about">
          <dt>Consumer group id</dt><dd><code>${group.groupId}</code></dd>
          <dt>Topics</dt><dd>${group.topics.map(({ name: topic, partitions: count }) => `${topic} (${count == null ? "unknown partitions" : `${count} partitions`})`).join(", ")}</dd>
          <dt>Writers</dt><dd>${group.writers.join(", ")}</dd>
          <dt>Dead letter topic</dt><dd>${group.deadLetterTopic ? html`<a href=${`/groups/${this.path()}/dead-letters`}>${group.deadLetterTopic}</a>` : "none"}</dd>
          <dt>Resource</dt><dd>${group.origin}</dd>
        </dl>
      </section>
    </main>`;
  }
}

/** Partitions that make no progress, each with the record and its error. */
function Stalled({ partitions }) {
  const stalled = partitions.filter((it) => it.stalledSince || (it.pausedReason && it.oldest?.lastError));
  if (stalled.length === 0) return null;
  return html`<section class="attention" aria-labelledby="stalled">
    <h2 id="stalled">Partitions without progress</h2>
    <ul>
      ${stalled.map(
        (it) => html`<li key=${`${it.topic}-${it.partition}`}>
          <strong>${it.topic}-${it.partition}</strong>${it.oldest && html` at offset ${it.oldest.errorOffset ?? it.oldest.offset}`}:
          ${" "}${it.pausedReason ?? "NoProgress"}${it.stalledSince && html`, for ${ago(it.stalledSince).replace(" ago", "")}`}
          ${it.oldest && html`, attempts: ${it.oldest.attempts}`}
          ${it.oldest?.lastError && html`<pre>${it.oldest.lastError}</pre>`}
        </li>`,
      )}
    </ul>
  </section>`;
}

const Conditions = ({ conditions }) => html`<section>
  <h2 id="conditions">Conditions</h2>
  <div class="scroll" tabindex="0" role="region" aria-label="Conditions"><table>
    <caption class="hidden">Conditions</caption>
    <thead><tr><th scope="col">Condition</th><th scope="col">Status</th><th scope="col">Reason</th><th scope="col">What is the case, and what to do</th><th scope="col">Since</th></tr></thead>
    <tbody>${conditions.map(
      (it) => html`<tr key=${it.type}>
        <th scope="row">${it.type}</th><td><${Status} status=${it.status} words=${CONDITION_WORDS} /></td>
        <td>${it.reason}</td><td class="text">${it.message}</td><td>${time(it.lastTransitionTime)}</td>
      </tr>`,
    )}</tbody>
  </table></div>
</section>`;

function Partitions({ partitions, sort, onSort }) {
  const header = (label, name, numeric = true) => html`<${Sort} ...${{ label, name, sort, onSort, numeric }} />`;
  const value = (it, name) => (name === "partition" ? `${it.topic}-${String(it.partition).padStart(6, "0")}` : it[name]);
  const row = (it, index) => html`<tr key=${`${it.topic}-${it.partition}`} aria-rowindex=${index + 2}>
    <th scope="row">${it.topic}-${it.partition}</th>
    <td><${Value} of=${it} field="worker" show=${(name) => name} /></td>
    <td class="numeric"><${Value} of=${it} field="committed" show=${number} /></td>
    <td class="numeric"><${Value} of=${it} field="end" show=${number} /></td>
    <td class="numeric"><${Value} of=${it} field="lag" show=${number} /></td>
    <td class="numeric"><${Value} of=${it} field="inPerSecond" show=${compact} /></td>
    <td class="numeric"><${Value} of=${it} field="donePerSecond" show=${compact} /></td>
    <td>${it.pausedReason ?? ""}</td>
  </tr>`;
  return html`<section>
    <h2 id="partitions">Partitions</h2>
    ${partitions.length === 0
      ? html`<p class="empty">No partitions are known yet.</p>`
      : html`<div class="scroll" tabindex="0" role="region" aria-label="Partitions"><table aria-rowcount=${partitions.length + 1}>
          <caption class="hidden">Partitions</caption>
          <thead><tr>
            ${header("Partition", "partition", false)}${header("Worker", "worker", false)}${header("Committed", "committed")}
            ${header("End", "end")}${header("Lag", "lag")}${header("In/s", "inPerSecond")}${header("Done/s", "donePerSecond")}
            <th scope="col">Not read because</th>
          </tr></thead>
          <${Rows} items=${sorted(partitions, sort, value)} row=${row} />
        </table></div>`}
  </section>`;
}

/** Why no worker is shown. @param {any} group */
function noWorkers({ workersDesired, unknown }) {
  if (workersDesired === 0) return "No workers run.";
  const why = unknown?.finishedTotal ?? "no worker has reported yet";
  return `${why[0].toUpperCase()}${why.slice(1)}.`;
}

const Workers = ({ workers, group }) => html`<section>
  <h2 id="workers">Workers</h2>
  ${workers.length === 0
    ? html`<p class="empty">${noWorkers(group)}</p>`
    : html`<div class="scroll" tabindex="0" role="region" aria-label="Workers"><table>
        <caption class="hidden">Workers</caption>
        <thead><tr>
          <th scope="col">Worker</th><th scope="col">Phase</th><th scope="col" class="numeric">Partitions</th>
          <th scope="col" class="numeric">In flight</th><th scope="col" class="numeric">Finished</th>
          <th scope="col" class="numeric">Dead letters</th><th scope="col" class="numeric">Exits</th>
          <th scope="col">Started</th><th scope="col">Last error</th>
        </tr></thead>
        <tbody>${workers.map(
          (it) => html`<tr key=${it.name}>
            <th scope="row">${it.name}</th>
            <td><${Value} of=${it} field="phase" show=${(phase) => phase} /></td>
            <td class="numeric"><${Value} of=${it} field="partitions" show=${number} /></td>
            <td class="numeric"><${Value} of=${it} field="inFlight" show=${number} /></td>
            <td class="numeric"><${Value} of=${it} field="finishedTotal" show=${number} /></td>
            <td class="numeric"><${Value} of=${it} field="deadLetteredTotal" show=${number} /></td>
            <td class="numeric"><${Value} of=${it} field="exits" show=${number} /></td>
            <td><${Value} of=${it} field="startedAt" show=${time} /></td><td class="text">${it.lastError ?? ""}</td>
          </tr>`,
        )}</tbody>
      </table></div>`}
</section>`;

const Events = ({ events, refused }) => html`<section>
  <h2 id="events">Events</h2>
  ${refused !== null
    ? html`<p class="empty">${refused}</p>`
    : events === null
    ? html`<p>Loading …</p>`
    : events.length === 0
      ? html`<p class="empty">No events. The API server keeps them for an hour, local mode until its end.</p>`
      : html`<ul class="events">${events.slice(0, 30).map(
          (it) => html`<li class=${it.type}>
            <span class="when">${time(it.time)}</span> <strong>${it.type === "Warning" ? "⚠ Warning: " : ""}${it.reason}</strong>
            <span class="message">${it.message}</span>
          </li>`,
        )}</ul>`}
</section>`;
