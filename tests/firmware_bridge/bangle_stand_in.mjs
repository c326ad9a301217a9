// A Bangle.js 2 without a watch: its API as app.js uses it, a clock that goes when told, a flash whose power may fail.
// One JSON request a line on stdin, one JSON answer a line on stdout. Octets are hexadecimal.
import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import readline from "node:readline";
import vm from "node:vm";

const APP = path.resolve(process.argv[2]);
const source = (name) => new vm.Script(fs.readFileSync(path.join(APP, name), "utf8"), { filename: name });
const WIRE = source("wire.js"), APP_JS = source("app.js");

class PowerCut extends Error {}

function aes(key, context) {
  return {
    ccmEncrypt(message, key, iv, tagLength) {
      const data = Buffer.from(message);
      const cipher = crypto.createCipheriv("aes-128-ccm", Buffer.from(key), Buffer.from(iv), { authTagLength: tagLength });
      const out = Buffer.concat([cipher.update(data), cipher.final()]);
      return { data: context.eval(`new Uint8Array([${[...out]}])`), tag: context.eval(`new Uint8Array([${[...cipher.getAuthTag()]}])`) };
    },
  };
}

class Watch {
  constructor({ storage = {}, native = true, cut_at = 0, cut_how = "before", offset_s = 1.7e9 } = {}) {
    Object.assign(this, { files: { ...storage }, t: 0, offset_s, timers: [], id: 0, tx: [], log: [], writes: 0, dead: false,
      cut_at, cut_how, charging: false, battery: 80, temperature: 31, button: false, skin: false, hrm: false, full: false,
      connected: false, console: "Bluetooth", listeners: {}, samples: [], held: [0, 0, 4096], period: 0, stall_until: 0,
      screen: "", options: {}, old: [0, 0, 0] });
    this.boot(native);
  }

  on(who, event, f) { (this.listeners[`${who}.${event}`] ??= []).push(f); }
  emit(who, event, ...args) { if (!this.dead) for (const f of this.listeners[`${who}.${event}`] ?? []) this.guard(() => f(...args)); }

  guard(f) {
    try { f(); } catch (e) {
      if (!this.dead) this.log.push(`error: ${e.stack ?? e}`);
    }
  }

  write(name, text) {
    this.writes++;
    if (this.full) return false;
    const cut = this.writes === this.cut_at;
    this.dead ||= cut;
    if (this.dead && !cut) throw new PowerCut(); // what the app still does about it is done by nobody
    if (cut && this.cut_how === "before") throw new PowerCut();
    delete this.files[name]; // as Storage does: the old file goes first
    if (cut && this.cut_how === "erased") throw new PowerCut();
    this.files[name] = cut && this.cut_how === "torn" ? text.slice(0, text.length >> 1) : text;
    if (cut) throw new PowerCut();
    return true;
  }

  timer(f, ms, repeat, args) {
    this.timers.push({ id: ++this.id, due: this.t + ms / 1000, f: () => f(...args), every: repeat ? ms / 1000 : 0 });
    return this.id;
  }

  boot(native) {
    const w = this;
    const json = (name, quiet) => {
      if (!(name in w.files)) return undefined;
      try { return JSON.parse(w.files[name]); } catch (e) { if (quiet) return undefined; throw e; }
    };
    const storage = { readJSON: json, read: (n) => w.files[n], write: (n, s) => w.write(n, s),
      writeJSON: (n, o) => w.write(n, JSON.stringify(o)), getStats: () => ({ trashBytes: w.trash ?? 0 }), compact: () => w.log.push("compact") };
    const context = vm.createContext({});
    context.eval = (code) => vm.runInContext(code, context);
    // Espruino's slice of a typed array is a plain array.
    context.eval("Uint8Array.prototype.slice = function (a, b) { return Array.prototype.slice.call(this, a, b); };");
    context.exports = {};
    WIRE.runInContext(context);
    this.wire = context.exports;
    this.context = context;
    const g = new Proxy({}, { get: (_, name) => (...args) => { if (name === "clear") w.screen = ""; if (name === "drawString") w.screen += `${args[0]}\n`; return g; } });
    Object.assign(context, {
      g, getTime: () => w.t + w.offset_s, Date: class { getHours() { return 12; } getMinutes() { return 0; } },
      require: (name) => {
        if (name === "Storage") return storage;
        if (name === "fallwatchwire") return w.wire;
        if (name === "crypto" && native) return { AES: aes(null, context) };
        throw new Error(`Module ${name} not found`);
      },
      setInterval: (f, ms, ...args) => w.timer(f, ms, true, args), setTimeout: (f, ms, ...args) => w.timer(f, ms, false, args),
      clearTimeout: (id) => { w.timers = w.timers.filter((x) => x.id !== id); },
      E: { clip: (v, a, b) => Math.min(Math.max(v, a), b), getBattery: () => w.battery, getTemperature: () => w.temperature,
        setConsole: (to, o) => { w.console = to === null ? null : "Bluetooth"; w.forced = o.force; }, on: (e, f) => w.on("E", e, f) },
      Bangle: { on: (e, f) => w.on("Bangle", e, f), isCharging: () => w.charging, buzz: (ms) => { if (!w.dead) w.log.push(`buzz ${ms}`); },
        setBacklight: (on) => w.log.push(`light ${on}`), accelWr: (r, v) => { w.old[r] = v; }, setOptions: (o) => Object.assign(w.options, o),
        setPollInterval: (ms) => { if (ms < 10 || ms > 4000) throw new Error("Invalid interval"); w.period = Math.round(ms * 32.768) / 32768; w.poll_at = w.t + w.period; },
        setHRMPower: (on) => { w.hrm = on; w.log.push(`hrm ${on}`); }, showLauncher: () => w.log.push("launcher") },
      BTN1: { read: () => w.button },
      Bluetooth: { write: (a) => { if (w.connected && !w.dead) w.tx.push(Buffer.from(a).toString("hex")); }, on: (e, f) => w.on("Bluetooth", e, f),
        removeAllListeners: (e) => { delete w.listeners[`Bluetooth.${e}`]; } },
      NRF: { on: (e, f) => w.on("NRF", e, f), getAddress: () => "c0:ff:ee:00:12:34 random", getSecurityStatus: () => ({ connected: w.connected }) },
    });
    this.guard(() => APP_JS.runInContext(context));
  }

  poll() {
    const raw = this.samples.length ? (this.held = this.samples.shift()) : this.held;
    this.fresh = raw; // a reading that nobody has taken yet is overwritten
  }

  deliver() {
    const raw = this.fresh;
    this.fresh = undefined;
    const [x, y, z] = raw.map((v) => v / 8192), last = this.last ?? [x, y, z];
    const diff = Math.hypot(x - last[0], y - last[1], z - last[2]);
    this.last = [x, y, z];
    const square = raw[0] ** 2 + raw[1] ** 2 + raw[2] ** 2;
    this.emit("Bangle", "accel", { x, y, z, diff, mag: square > 2147483647 ? NaN : Math.sqrt(square) / 8192 });
    if (this.hrm) this.emit("Bangle", "HRM-raw", { isWearing: this.skin });
  }

  run({ seconds, samples = [], stalls = [] }) {
    const end = this.t + seconds, start = this.t;
    this.samples.push(...samples);
    while (!this.dead) {
      const next = this.timers.reduce((a, b) => (a && a.due <= b.due ? a : b), undefined);
      const poll = this.period ? this.poll_at : Infinity;
      const due = Math.min(next ? next.due : Infinity, poll);
      if (due > end) break;
      const stall = stalls.find(([at, s]) => due >= start + at && due < start + at + s);
      const busy = stall && start + stall[0] + stall[1]; // interpreter busy until then; interrupts go on
      if (poll <= due) {
        this.poll_at += this.period;
        this.t = Math.max(this.t, poll);
        this.poll();
        if (busy) { this.timers.push({ id: 0, due: busy, f: () => { if (this.fresh) this.deliver(); }, every: 0 }); }
        else this.deliver();
        continue;
      }
      this.t = Math.max(this.t, due);
      if (busy) { next.due = busy; continue; }
      if (next.every) next.due += next.every; else this.timers.splice(this.timers.indexOf(next), 1);
      this.guard(next.f);
    }
    if (!this.dead) this.t = end;
  }
}

let watch;
const OPS = {
  start(q) { watch = new Watch(q); },
  run(q) { watch.run(q); },
  set(q) { const was = watch.charging; Object.assign(watch, q.values); if (watch.charging !== was) watch.emit("Bangle", "charging", watch.charging); },
  link(q) { watch.connected = q.up; watch.emit("NRF", q.up ? "connect" : "disconnect"); },
  rx(q) { watch.emit("Bluetooth", "data", Buffer.from(q.hex, "hex").toString("latin1")); },
  emit(q) { watch.emit(q.who, q.event, ...(q.args ?? [])); },
  state() {},
  wire(q) { // pure functions, for the examples of the protocol's page
    watch ??= new Watch();
    const w = watch.wire, oct = (h) => w.fromHex(h);
    const ccm = (key) => w.Ccm(oct(key), aes(null, watch.context));
    const nothing = { u: 0, c: 0, b: 0 };
    switch (q.what) {
      case "block": return { value: w.toHex(w.Aes(oct(q.key))(oct(q.hex))) };
      case "frame": return { value: w.toHex(w.frame(q.kind, oct(q.hex))) };
      case "unframe": { const got = []; const d = w.Decoder((kind, body) => got.push([kind, w.toHex(body)])); for (const part of q.parts) d.feed(Buffer.from(part, "hex").toString("latin1")); return { value: got, bad: d.badFrames }; }
      case "message": { const m = q.message; if (m.xyz) { const b = oct(m.xyz); m.xyz = new Int16Array(b.buffer); } return { value: w.toHex(w[q.name](m)) }; }
      case "dongleHello": return { value: w.toHex(w.dongleHello([1, 0, 0], q.serial)) };
      case "dongleStatus": return { value: w.toHex(w.dongleStatus(...q.args)) };
      case "command": { const c = w.command(oct(q.hex)); if (c?.challenge) c.challenge = w.toHex(c.challenge); return { value: c ?? null }; }
      case "seal": { const s = w.Session(q.wearable, ccm(q.key), { ...nothing, u: q.counter - 1 }, () => {}); return { value: w.toHex(s.seal(q.type, oct(q.hex))) }; }
      case "open": { const s = w.Session(q.wearable, ccm(q.key), { ...nothing, c: q.counter - 1 }, () => {}); const c = s.open(oct(q.hex)); if (c?.challenge) c.challenge = w.toHex(c.challenge); return { value: c ?? null }; }
      case "last": { const s = w.Session("0042", ccm(q.key), { ...nothing, u: 4294967294 }, () => {}); return { value: [1, 2].map(() => Boolean(s.seal(3, oct("00")))) }; }
    }
  },
};
for await (const line of readline.createInterface({ input: process.stdin })) {
  const q = JSON.parse(line);
  let answer;
  try { answer = OPS[q.op](q) ?? {}; } catch (e) { answer = { failed: String(e.stack ?? e) }; }
  if (watch && q.op !== "wire") {
    Object.assign(answer, { tx: watch.tx.join(""), log: watch.log, storage: watch.files, dead: watch.dead, screen: watch.screen, console: watch.console,
      t: watch.t, writes: watch.writes, hrm: Boolean(watch.hrm), registers: Object.entries(watch.old), options: watch.options });
    watch.tx = [];
    watch.log = [];
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
