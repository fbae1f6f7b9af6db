// The page with all groups.
import { html, Component } from "./html.js";
import { compact, duration, number } from "./format.js";
import { Connection, Rows, Sort, Standby, Status, Value, sorted } from "./parts.js";

const RANK = { False: 0, Unknown: 1, True: 2 };
const columnValue = (group, name) => (name === "ready" ? RANK[group.ready] : group[name]);

/** The sum of a field; unknown if it is unknown for a group. */
function sum(groups, field) {
  let total = 0;
  for (const group of groups) {
    if (group[field] == null) return null;
    total += group[field];
  }
  return total;
}

export class Groups extends Component {
  constructor(props) {
    super(props);
    const query = new URLSearchParams(location.search);
    this.state = {
      search: query.get("search") ?? "",
      ready: query.get("ready") ?? "",
      sort: query.get("sort") ?? "attention",
    };
  }

  /** Filters are in the address, so that a link shows the same. */
  change(change) {
    this.setState(change, () => {
      const { search, ready, sort } = this.state;
      const query = new URLSearchParams();
      if (search) query.set("search", search);
      if (ready) query.set("ready", ready);
      if (sort !== "attention") query.set("sort", sort);
      history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
    });
  }

  found(all) {
    const { search, ready, sort } = this.state;
    const text = search.toLowerCase();
    const found = all.filter(
      (group) =>
        (!ready || group.ready === ready) &&
        (!text || `${group.namespace}/${group.name} ${group.groupId}`.toLowerCase().includes(text)),
    );
    if (sort !== "attention") return sorted(found, sort, columnValue);
    const byLag = sorted(sorted(found, "name"), "-lag");
    return byLag.sort((one, other) => RANK[one.ready] - RANK[other.ready]);
  }

  render({ live, me }, { search, ready, sort }) {
    const all = Object.values(live.groups);
    const known = live.receivedAt !== null;
    const found = this.found(all);
    const notReady = all.filter((group) => group.ready !== "True").length;
    const onSort = (next) => this.change({ sort: next });
    const header = (label, name, numeric = true) =>
      html`<${Sort} ...${{ label, name, sort, onSort, numeric }} />`;
    return html`
      <main class=${live.status}>
        <h1>Consumer groups</h1>
        <${Connection} live=${live} />
        <${Standby} me=${me} />
        <dl class="numbers">
          <div><dt>Groups</dt><dd>${number(known ? all.length : null)}</dd></div>
          <div><dt>Not ready</dt><dd class=${notReady ? "bad" : ""}>${number(known ? notReady : null)}</dd></div>
          <div><dt>Lag</dt><dd>${compact(known ? sum(all, "lag") : null)}</dd></div>
          <div><dt>In per second</dt><dd>${compact(known ? sum(all, "inPerSecond") : null)}</dd></div>
          <div><dt>Done per second</dt><dd>${compact(known ? sum(all, "donePerSecond") : null)}</dd></div>
        </dl>
        <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
          <label>Search <input type="search" value=${search} placeholder="name or group id"
            onInput=${(event) => this.change({ search: event.target.value })} /></label>
          <label>Ready <select value=${ready} onChange=${(event) => this.change({ ready: event.target.value })}>
            <option value="">all</option>
            <option value="False">not ready</option>
            <option value="True">ready</option>
            <option value="Unknown">unknown</option>
          </select></label>
          ${sort !== "attention" &&
          html`<button type="button" onClick=${() => onSort("attention")}>What needs attention first</button>`}
        </form>
        ${this.table(live, me, all, found, header)}
      </main>`;
  }

  table(live, me, all, found, header) {
    if (live.receivedAt === null)
      return html`<p>${live.problem ? "" : live.status === "loading" ? "Loading …" : "The server has not answered yet."}</p>`;
    if (all.length === 0)
      return me?.user
        ? html`<p class="empty">No groups. Create one: <code>kubectl apply -f orders.yaml</code></p>`
        : html`<p class="empty">No groups. In local mode, pass a file: <code>kafka-consumer-operator local -f orders.yaml</code></p>`;
    if (found.length === 0) return html`<p class="empty">No group matches. Change the search or the filter.</p>`;
    return html`<div class="scroll" tabindex="0" role="region" aria-label="Groups">
      <table aria-rowcount=${found.length + 1}>
        <caption class="hidden">Consumer groups</caption>
        <thead>
          <tr>
            ${header("Group", "name", false)}${header("Ready", "ready", false)}
            <th scope="col">State</th>
            ${header("Lag", "lag")}${header("In/s", "inPerSecond")}${header("Done/s", "donePerSecond")}
            ${header("Catch up", "catchUpSeconds")}${header("Workers", "workers")}
            ${header("Dead letters/min", "deadLettersPerMinute")}
          </tr>
        </thead>
        <${Rows} items=${found} row=${row} />
      </table>
    </div>`;
  }
}

const row = (group, index) => html`
  <tr key=${`${group.namespace}/${group.name}`} aria-rowindex=${index + 2}>
    <th scope="row">
      <a href=${`/groups/${encodeURIComponent(group.namespace)}/${encodeURIComponent(group.name)}`}>${group.namespace}/${group.name}</a>
    </th>
    <td><${Status} status=${group.ready} /> <span class="reason" title=${group.message}>${group.reason}</span></td>
    <td><${Value} of=${group} field="desiredState" show=${(state) => state} /></td>
    <td class="numeric"><${Value} of=${group} field="lag" show=${number} /></td>
    <td class="numeric"><${Value} of=${group} field="inPerSecond" show=${compact} /></td>
    <td class="numeric"><${Value} of=${group} field="donePerSecond" show=${compact} /></td>
    <td class="numeric"><${Value} of=${group} field="catchUpSeconds" show=${duration} /></td>
    <td class="numeric"><${Value} of=${group} field="workers" show=${number} />/<${Value} of=${group} field="workersDesired" show=${number} /></td>
    <td class="numeric"><${Value} of=${group} field="deadLettersPerMinute" show=${number} /></td>
  </tr>`;
