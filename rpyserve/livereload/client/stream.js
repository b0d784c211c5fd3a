// The stream of changes: one for all tabs of a browser, and what they say about them.
//
// The tab that has the lock has the stream, and passes on what it hears. Each tab first asks by
// itself what has changed since it was made, and asks again when it may have missed something. A
// tab that is closed, frozen or kept for "back" gives the lock away. One that is stuck, as in a
// debugger, does not answer, and a tab that is seen takes the lock from it. Browsers have locks on
// this machine and over TLS; without them each tab has a stream of its own. Where a site's own
// streams need the connections, there is none, and the server is asked now and then.
//
// Uses *cursor*, *SITE*, *ASKED* and queueChange() of the page, once it has joined.

const RETRY_DELAY = 300; // ms until the server is asked again: it may be starting
const NOTICE_DELAY = 700; // ms without the server before the page says so
const ASK_DELAY = 1000; // ms from one question to the next, where there is no room for a stream
const LONGEST_ASK_DELAY = 5000; // the same where many ask and nothing changes
const PULSE = 2000; // ms in which the tab that has the stream must answer
const ANSWER_DELAY = 150; // ms for which the answers of all tabs are gathered

const NAME = Math.random().toString(36).slice(2); // what tells this tab from others

let membership = null; // null while this page does not follow
let noticeTimer = 0; // 0 while there is a connection
const WAS_RELOADED = performance.getEntriesByType("navigation")[0]?.type === "reload";
let isReloaded = WAS_RELOADED; // and nobody has been told yet

function join() {
  leave();
  membership = new Membership();
  membership.begin();
}

function leave() {
  membership?.end();
  membership = null;
}

const isConnected = () => !noticeTimer;

// Says what has become of the changes so far: "shown", "loading" or "unchanged". *caused* is 1
// where this page has caused them, because it had been loaded again.
const answer = (did, caused = 0) => membership?.answer({ since: cursor, did, caused });

function eventsUrl(fields) {
  const page = location.pathname.slice(SITE.pathname.length - 1);
  const query = new URLSearchParams({ since: cursor, page, name: NAME, ...fields });
  return new URL(`-/events?${query}`, SITE);
}

// --- Cursors: a token of the server's run, and a number

const runOf = (cursor) => cursor.slice(0, cursor.lastIndexOf("-"));
const numberOf = (cursor) => Number(cursor.slice(cursor.lastIndexOf("-") + 1));
const isUpTo = (one, other) => runOf(one) === runOf(other) && numberOf(one) <= numberOf(other);

class Membership {
  isLeading = false; // whether this tab has the stream, or stands in for it by asking
  source = null;
  heard = ""; // the cursor of what the stream has said
  visitor = ""; // whom the server takes this browser for
  isSilent = false; // whether the tab that has the stream has not answered
  tabs = 1; // that follow, as far as they have been counted
  counted = null;
  caughtUp = null; // the first answer, a promise
  lock = null;
  answers = new Answers();

  constructor() {
    this.over = new AbortController();
    this.waiting = new AbortController();
    this.isShared = Boolean(navigator.locks && window.BroadcastChannel);
    if (!this.isShared) return;
    this.group = `rpyserve ${SITE}`;
    this.channel = new BroadcastChannel(this.group);
    this.channel.onmessage = ({ data: { kind, ...message } }) => this[`on_${kind}`]?.(message);
    this.pulse = setInterval(() => this.checkLeader(), PULSE);
  }

  get isOver() {
    return this.over.signal.aborted;
  }

  async begin() {
    this.caughtUp = this.catchUp();
    if (!(await this.caughtUp)) return;
    if (!this.isShared) return this.lead();
    this.post("joined", { visitor: this.visitor });
    this.request({ signal: this.waiting.signal });
  }

  end() {
    this.over.abort();
    this.waiting.abort();
    this.closeSource();
    clearInterval(this.pulse);
    this.channel?.close();
  }

  // --- Asking

  // Learns what has changed since *cursor*. Returns what the server said, or null if this page is
  // not to follow any more.
  async catchUp() {
    while (!this.isOver) {
      const from = cursor;
      const said = await this.ask();
      if (this.isOver) return null;
      if (said) {
        isReloaded = false;
        this.visitor = said.visitor;
        this.pass({ from, to: said.cursor, change: said.change });
        return said;
      }
      this.noticeLost();
      await sleep(RETRY_DELAY);
      if (document.hidden && !this.isShared) this.giveUp(); // until it is seen
    }
    return null;
  }

  async ask() {
    const fields = { once: "" };
    if (this.isShared) fields.shared = "";
    if (isReloaded) fields.reloaded = "";
    const options = { cache: "no-store", signal: this.over.signal };
    const url = eventsUrl(fields);
    const sent = performance.now();
    try {
      const response = await fetch(url, options);
      const received = performance.now();
      if (response.ok) {
        const said = await response.json();
        // While a page loads, what runs here may be long after what happened.
        const entries = performance.getEntriesByName(url.href);
        const timing = entries.find(({ startTime }) => startTime >= sent);
        setClock({
          sent: timing?.requestStart || sent,
          received: timing?.responseStart || received,
          now: said.now,
        });
        return said;
      }
      // The server is there, but without live reload, or not for this visitor.
      if ([401, 403, 404].includes(response.status)) this.giveUp();
    } catch {
      // It is away.
    }
    return null;
  }

  giveUp() {
    endNotice();
    if (membership === this) leave();
  }

  // --- One tab has the stream

  async request(options) {
    const lock = {};
    this.lock = lock;
    try {
      await navigator.locks.request(this.group, options, () => this.lead());
    } catch (error) {
      if (this.isOver || this.lock !== lock) return;
      this.isLeading = false;
      this.closeSource();
      if (error.name === "AbortError") return this.wait(); // another tab has taken it
      this.isShared = false; // there are no locks in this document
      this.lead();
    }
  }

  wait() {
    this.waiting = new AbortController();
    this.request({ signal: this.waiting.signal });
  }

  takeOver() {
    this.lock = null;
    this.waiting.abort();
    this.request({ steal: true });
  }

  lead() {
    this.isLeading = true;
    this.listen();
    return new Promise((release) => {
      if (this.isOver) release();
      this.over.signal.addEventListener("abort", release);
    });
  }

  listen() {
    if (!this.isLeading || this.isOver) return; // another tab has taken the lock meanwhile
    this.closeSource();
    this.heard = cursor;
    this.source = new EventSource(eventsUrl(this.isShared ? { shared: "" } : {}));
    const share = ({ data, lastEventId }) => this.share(JSON.parse(data), lastEventId);
    for (const name of ["hello", "change"]) this.source.addEventListener(name, share);
    this.source.addEventListener("crowded", () => this.askNowAndThen());
    this.source.addEventListener("error", () => this.reconnect());
  }

  closeSource() {
    this.source?.close();
    this.source = null;
  }

  share(change, to) {
    const message = { from: this.heard, to, change };
    this.heard = to;
    this.pass(message);
  }

  // Hears *message*, and has all other tabs hear it, if that is this tab's part.
  pass(message) {
    if (this.isLeading) {
      this.post("change", message);
      this.counted = this.countTabs();
    }
    this.hear(message);
  }

  hear({ from, to, change }) {
    if (noticeTimer) endNotice();
    if (isUpTo(to, cursor)) return; // it is known
    if (from !== cursor && !isUpTo(from, cursor)) return this.catchUp();
    cursor = to;
    takeChange(change);
  }

  async reconnect() {
    this.closeSource();
    this.post("lost");
    this.noticeLost();
    await this.refresh();
  }

  async refresh() {
    if (await this.catchUp()) this.listen();
  }

  noticeLost() {
    noticeTimer ||= setTimeout(showNotice, NOTICE_DELAY, "Connection lost, reconnecting…");
  }

  async askNowAndThen() {
    this.closeSource();
    let delay = ASK_DELAY;
    while (this.isLeading && !this.isOver) {
      await sleep(delay);
      if (document.hidden && !this.isShared) return this.giveUp(); // until it is seen
      const before = cursor;
      const said = this.isLeading && (await this.catchUp());
      if (said?.room) return this.listen();
      const isQuiet = cursor === before && !this.isShared;
      delay = isQuiet ? Math.min(delay * 1.5, LONGEST_ASK_DELAY) : ASK_DELAY;
    }
  }

  // --- Between tabs

  post(kind, message = {}) {
    if (this.isShared && !this.isOver) this.channel.postMessage({ kind, ...message });
  }

  checkLeader() {
    if (this.isLeading || document.hidden) this.isSilent = false;
    else if (this.isSilent) this.takeOver();
    else {
      this.isSilent = true;
      this.post("ping");
    }
  }

  on_ping() {
    // The timers of a tab that is not seen are slow: another one had better look for the server.
    if (this.isLeading && (isConnected() || !document.hidden)) this.post("pong");
  }

  on_pong() {
    this.isSilent = false;
  }

  // What is heard while this tab asks for the first time waits: the server's time is not known yet.
  async on_change(message) {
    if ((await this.caughtUp) && !this.isLeading) this.hear(message);
  }

  on_lost() {
    this.noticeLost();
  }

  // A visitor who has logged in meanwhile may be told of more.
  on_joined({ visitor }) {
    this.counted = this.countTabs();
    if (this.isLeading && visitor !== this.visitor) this.refresh();
  }

  async on_answer(said) {
    await this.counted;
    if (this.isLeading) this.answers.add(said, this.tabs);
  }

  answer(said) {
    if (!this.isLeading) return this.post("answer", said);
    if (said.did !== "loading") return this.on_answer(said);
    this.answers.add(said, this.tabs);
    this.answers.send(this.tabs); // this tab is about to go
  }

  async countTabs() {
    if (!this.isShared) return;
    const { held, pending } = await navigator.locks.query();
    const ours = [...held, ...pending].filter(({ name }) => name === this.group);
    this.tabs = new Set(ours.map(({ clientId }) => clientId)).size;
  }
}

// What the tabs of this browser say of a change, for the server's console: one request for all.
class Answers {
  counts = Answers.none();
  since = "";
  timer = 0;

  static none() {
    return { shown: 0, loading: 0, unchanged: 0, caused: 0 };
  }

  get total() {
    const { shown, loading, unchanged } = this.counts;
    return shown + loading + unchanged;
  }

  add({ since, did, caused }, tabs) {
    this.since = since;
    this.counts[did] += 1;
    this.counts.caused += caused;
    if (this.total >= tabs) return this.send(tabs);
    this.timer ||= setTimeout(() => this.send(tabs), ANSWER_DELAY);
  }

  send(tabs) {
    clearTimeout(this.timer);
    this.timer = 0;
    if (!this.total) return;
    const url = eventsUrl({ ...this.counts, since: this.since, tabs });
    this.counts = Answers.none();
    fetch(url, { method: "POST", keepalive: true }).catch(() => {});
  }
}

function endNotice() {
  clearTimeout(noticeTimer);
  noticeTimer = 0;
  hideNotice();
}

// --- What this page has caused itself

const CLOCK_SLACK = 20; // ms between what the browser and the server take for the same moment
const TIMING_DELAY = 300; // ms until a browser tells when a request ran
const OWN_REQUEST_WAIT = 400; // ms in which a request that still runs must end
const MAX_REQUESTS = 200;
const LOADING_PERIOD = 2000; // ms after a load in which a page writes because it was loaded

let clock = { offset: 0, trip: Infinity }; // of the server's time to this page's, in ms

function setClock({ sent, received, now }) {
  const trip = received - sent;
  if (trip < clock.trip) clock = { trip, offset: now - (sent + received) / 2 };
}

const requests = []; // when this page's last requests ran: [from, to] in ms of its own time
const noteRequests = (entries) => {
  for (const { name, startTime, responseEnd } of entries) {
    if (!name.startsWith(new URL("-/", SITE).href)) requests.push([startTime, responseEnd]);
  }
  requests.splice(0, requests.length - MAX_REQUESTS);
};
const timings = new PerformanceObserver((list) => noteRequests(list.getEntries()));
timings.observe({ type: "resource", buffered: true });

// A change that this page's own requests have made is its own business.
async function takeChange(change) {
  if (!change.by || !(await isOwnDoing(change.by))) return queueChange(change);
  answer("unchanged", mayCauseChain && performance.now() < LOADING_PERIOD ? 1 : 0);
  mayCauseChain = false; // that counts once a load
}

// Whether what this page writes is because it was loaded again: nobody has done anything in it yet.
// What a browser knows of that would outlive the load.
let mayCauseChain = WAS_RELOADED;
for (const event of ["pointerdown", "keydown"]) {
  addEventListener(event, () => (mayCauseChain = false), { capture: true, once: true });
}

// Whether this page has made all of the requests that ran at these times of the server.
async function isOwnDoing(spans) {
  const now = performance.now();
  const isRunning = spans.some(([, to]) => to === null);
  const deadline = now + (isRunning ? OWN_REQUEST_WAIT : TIMING_DELAY);
  while (true) {
    noteRequests(timings.takeRecords());
    if (spans.every(isInOwnRequest)) return true;
    if (performance.now() >= deadline) return false;
    await sleep(20);
  }
}

function isInOwnRequest([from]) {
  const moment = from - clock.offset;
  const slack = CLOCK_SLACK + clock.trip / 2;
  // By the server's own clock: what begins just after the load is not of the load.
  if (-slack <= moment && from <= ASKED) return true;
  return requests.some(([start, end]) => start - slack <= moment && moment <= end + slack);
}
