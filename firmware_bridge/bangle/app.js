/* fallwatch on a Bangle.js 2: samples, seals and sends; see README.md. All that needs the watch is here, all that does
not is in wire.js. A packet's work is done in slices, one after each reading of the accelerometer: the watch keeps only
the last reading for us, so 20 ms of work at once would lose one. */

(function () {
  var W = require("fallwatchwire"), storage = require("Storage");
  var FIRMWARE = [1, 0, 0], HARDWARE = 2; // Bangle.js 2
  var RANGE_G = 8;
  var RATES = { // by Hz: poll interval, its true length in 1/32768 s (the poll timer's ticks), samples a run
    50: { poll_ms: 20, ticks: 655, run: 25, odr: 3 },
    25: { poll_ms: 40, ticks: 1311, run: 12, odr: 2 }
  };
  var RING = 80; // runs of half a second
  var LINGER = 12; // runs that may still be under way when the link turns out to be lost
  var MAX_QUEUE = 20;
  var HOLD_S = 1.5, STILL_S = 300, SKIN_S = 10, MOVED = 0.04;
  var READY_S = 2; // after a connection, if nobody asks: the far end has subscribed by then
  var FILES = ["fallwatch.a", "fallwatch.b"];

  var paired = storage.readJSON("fallwatch.json", true) || {};
  var notice = "", alert = "";

  function draw() {
    var now = new Date(), minutes = ("0" + now.getMinutes()).substr(-2);
    g.reset().clear().setFontAlign(0, 0);
    g.setFont("Vector", 52).drawString(now.getHours() + ":" + minutes, 88, 55);
    g.setFont("Vector", 24).drawString(alert || notice, 88, 120);
    g.setFont("Vector", 14).drawString(paired.wearable || "", 88, 160);
  }

  function stopped(why) {
    notice = why;
    draw();
    setInterval(draw, 60000);
  }

  // --- who we are, and what was promised to flash ---

  if (!W.isWearable(paired.wearable) || typeof paired.key != "string" || paired.key.length != 32)
    return stopped("NOT PAIRED"); // the console stays on Bluetooth, for pair.html
  var crypto;
  try { crypto = require("crypto").AES; } catch (e) { crypto = undefined; }
  var ccm = W.Ccm(W.fromHex(paired.key), crypto);
  if (!ccm) return stopped("OLD FIRMWARE");

  // Two files in turn: Storage takes the old one away before it writes the new one.
  var newest, turn = 0;
  FILES.forEach(function (name, i) {
    var state = storage.readJSON(name, true);
    if (state && state.k === ccm.check && (!newest || state.n > newest.n)) {
      newest = state;
      turn = 1 - i;
    }
  });
  if (!newest && !paired.fresh) return stopped("PAIR AGAIN"); // its counters are lost: none may be used twice
  var order = newest ? newest.n : 0;

  function save(state) {
    var text = JSON.stringify({ k: ccm.check, n: order + 1, u: state.u, c: state.c, b: state.b });
    storage.write(FILES[turn], text);
    if (storage.read(FILES[turn]) !== text) throw new Error("storage");
    order++;
    turn = 1 - turn;
  }

  var session = W.Session(paired.wearable, ccm, newest || { u: 0, c: 0, b: 0 }, save);
  try {
    session.start();
    if (paired.fresh) storage.writeJSON("fallwatch.json", { wearable: paired.wearable, key: paired.key });
  } catch (e) { return stopped("STORAGE FULL"); }
  notice = "NO LINK";

  // Nobody may type at the watch by radio while it is trusted. Forced, as the console else moves to Bluetooth at
  // every connection.
  E.setConsole(null, { force: true });
  E.on("kill", function () { E.setConsole(Bluetooth, { force: false }); });

  // --- state ---

  var serial = NRF.getAddress().substr(0, 17).split(":").join("").substr(-8);
  var clock = W.Clock(getTime()), now_s = 0;
  var rate_chz, rate, pace, index = 0, xyz, n = 0, first, tick, clipped = false;
  var worn = false, moved_s = -STILL_S, checked_s = -STILL_S, skin;
  var down_s, told_s, press = 0, pressed; // button: down since, the press told of, presses, the one not acknowledged
  var connected = false, up = false, ready, ring = [], sent = [], queue = [], job, lastSlice_s = 0;
  var frames = 0, dropped = 0;

  function flags() {
    return (worn ? W.WORN : 0) | (Bangle.isCharging() ? W.CHARGING : 0) | (pressed || down_s !== undefined ? W.BUTTON : 0);
  }

  // --- out ---

  function say(type, body, urgent) { // to the Pi, sealed when its turn comes
    var item = { type: type, body: body };
    if (urgent) queue.unshift(item);
    else if (queue.length < MAX_QUEUE) queue.push(item);
  }

  function sayHello() {
    say(W.TYPE.HELLO, W.hello({ boot: session.boot, firmware: FIRMWARE, hardware: HARDWARE, range_g: RANGE_G,
      rate_chz: rate_chz, last_command: session.lastCommand }));
  }

  function sayStatus() {
    say(W.TYPE.STATUS, W.status({ battery_pct: E.clip(E.getBattery(), 0, 100), battery_mv: 0,
      temperature_c: E.clip(Math.round(E.getTemperature()), -128, 127), flags: flags(), uptime_s: Math.floor(now_s) }));
  }

  function sayButton() {
    if (!up || !pressed || queue.some(function (item) { return item.type == W.TYPE.BUTTON; })) return;
    say(W.TYPE.BUTTON, W.button({ boot: session.boot, press: pressed.press, tick: ticks(pressed.at_s),
      held_ms: Math.min(65535, Math.round(1000 * (pressed.until_s - pressed.at_s))) }), true);
  }

  function ticks(at_s) { return Math.round(at_s * W.TICK_HZ) % 4294967296; }

  function begin() {
    var item = queue.shift(), body;
    if (!item && ring.length) item = { type: W.TYPE.SAMPLES, body: ring[0], run: true };
    if (!item) return undefined;
    if (item.kind) return { item: item, framing: W.Framing(item.kind, item.body) };
    var packet;
    try { packet = session.seal(item.type, item.body); } catch (e) { packet = undefined; }
    if (!packet) { // flash refuses, or all counters are used: silence, which the Pi reports
      alert = "CANNOT SEND";
      return undefined;
    }
    body = new Uint8Array(packet.length + 1);
    body[0] = 128; // signal strength: not known here
    body.set(packet, 1);
    return { item: item, framing: W.Framing(W.KIND.UPLINK, body) };
  }

  function slice() {
    lastSlice_s = now_s;
    if (!up) return;
    if (!job) {
      job = begin();
      return;
    }
    var line = job.framing.step();
    if (!line) return;
    var item = job.item;
    job = undefined;
    Bluetooth.write(line);
    if (item.kind) return;
    frames++;
    if (item.run && ring[0] === item.body) {
      sent.push(ring.shift());
      if (sent.length > LINGER) sent.shift();
    }
    if (item.type == W.TYPE.BUTTON && pressed && !pressed.sent) {
      pressed.sent = true;
      show("HELP SENT");
    }
  }

  function keep(runs) { // the oldest goes when there are too many
    ring = ring.concat(runs);
    while (ring.length > RING) {
      ring.shift();
      dropped++;
    }
  }

  function open() { // the far end listens from here on, and may have missed what was sent last
    var newer = ring;
    ring = sent;
    keep(newer);
    sent = [];
    queue = [];
    job = undefined;
    up = true;
    if (ready) clearTimeout(ready);
    ready = undefined;
    queue.push({ kind: W.KIND.HELLO, body: W.dongleHello(FIRMWARE, serial) });
    sayHello();
    sayStatus();
    sayButton();
    notice = "";
    draw();
  }

  function onConnect() {
    connected = true;
    if (ready) clearTimeout(ready);
    ready = setTimeout(open, READY_S * 1000);
  }

  function onDisconnect() {
    connected = up = false;
    if (ready) clearTimeout(ready);
    ready = job = undefined;
    notice = "NO LINK";
    draw();
  }

  // --- in ---

  function show(text) {
    alert = text;
    Bangle.buzz(200);
    draw();
    setTimeout(function () { if (alert == text) { alert = ""; draw(); } }, 60000);
  }

  function identify(seconds) {
    if (seconds <= 0) return Bangle.setBacklight(0);
    Bangle.setBacklight(seconds % 2);
    Bangle.buzz(500);
    setTimeout(identify, 1000, seconds - 1);
  }

  function obey(c) {
    if (c.action == "prove") {
      sayHello();
      return say(W.TYPE.PROOF, c.challenge, true);
    }
    if (c.action == "acknowledge") {
      if (pressed && c.boot == session.boot && c.press == pressed.press) {
        pressed = undefined;
        show("HELP HEARD");
      }
      return undefined;
    }
    if (c.action == "identify") identify(c.seconds);
    if (c.action == "reassure") show("STAFF KNOW");
    var wanted = c.action == "configure" && c.range_g == RANGE_G && RATES[Math.round(c.rate_chz / 100)];
    if (wanted) sample(wanted);
    return sayHello();
  }

  var decoder = W.Decoder(function (kind, body) {
    if (kind == W.KIND.ASK) return open();
    var c;
    try { c = session.open(new Uint8Array(body)); } catch (e) { c = undefined; } // not stored: not obeyed
    if (c) obey(c);
    return undefined;
  });

  // --- samples ---

  function closeRun() {
    if (n) keep([W.samples({ boot: session.boot, tick: tick, first: first, rate_chz: rate_chz, range_g: RANGE_G,
      flags: flags() | (clipped ? W.CLIPPED : 0), n: n, xyz: xyz })]);
    n = 0;
    clipped = false;
  }

  function sample(wanted) {
    closeRun();
    rate = wanted;
    rate_chz = Math.round(100 * W.TICK_HZ / rate.ticks);
    xyz = new Int16Array(3 * rate.run);
    pace = W.Pace(rate.ticks / W.TICK_HZ);
    index++; // a gap: nothing is bridged across a change
    // KX023: 8 g, full resolution. It measures twice as often as it is read (filter at half of that), as at the same
    // rate its own oscillator would now and then have nothing new.
    Bangle.accelWr(0x18, 0x74);
    Bangle.accelWr(0x1B, 0x40 | rate.odr);
    Bangle.accelWr(0x18, 0xF4);
    Bangle.setPollInterval(rate.poll_ms);
  }

  function onAccel(a) { // g / 2: the firmware believes in 4 g; times 8192 are the sensor's counts, and ours
    now_s = clock(getTime());
    var missed = pace.take(now_s);
    if (missed) {
      closeRun();
      index += missed;
    }
    if (!n) {
      first = index % 4294967296;
      tick = ticks(pace.at_s);
    }
    var at = 3 * n;
    xyz[at] = a.x * 8192;
    xyz[at + 1] = a.y * 8192;
    xyz[at + 2] = a.z * 8192;
    if (!(a.mag < 3.9)) // or no number: its square overflows
      clipped = clipped || Math.max(Math.abs(xyz[at]), Math.abs(xyz[at + 1]), Math.abs(xyz[at + 2])) >= 32767;
    if (a.diff > MOVED) moved_s = now_s;
    index++;
    if (++n == rate.run) closeRun();
    else slice();
  }

  // --- button, skin, every second ---

  function onButton() { // read, not watched: a locked screen swallows presses
    now_s = clock(getTime());
    if (!BTN1.read()) {
      down_s = undefined;
      return;
    }
    if (down_s === undefined) down_s = now_s;
    if (pressed && pressed.at_s == down_s) pressed.until_s = now_s;
    if (now_s - down_s < HOLD_S || told_s === down_s) return;
    told_s = down_s;
    press = press + 1 & 65535;
    pressed = { press: press, at_s: down_s, until_s: now_s };
    show("HELP: CALLING");
    sayButton();
  }

  function feel() {
    if (Bangle.isCharging()) worn = false;
    else if (now_s - moved_s < STILL_S) worn = true;
    else if (now_s - checked_s >= STILL_S) { // still for long: is there skin?
      checked_s = now_s;
      skin = false;
      Bangle.setHRMPower(1, "fallwatch");
      setTimeout(function () {
        Bangle.setHRMPower(0, "fallwatch");
        if (!Bangle.isCharging()) worn = skin;
      }, SKIN_S * 1000);
    }
  }

  var seconds = 0;
  function onSecond() {
    now_s = clock(getTime());
    seconds++;
    feel();
    if (seconds % 60 == 0) draw();
    if (!up) return;
    if (seconds % 60 == 0) sayHello();
    if (seconds % 30 == 0) sayStatus();
    sayButton();
    if (queue.length < MAX_QUEUE)
      queue.push({ kind: W.KIND.STATUS, body: W.dongleStatus(Math.round(now_s * 1000) % 4294967296, frames, dropped) });
    if (now_s - lastSlice_s > 0.5) for (var i = 0; i < 20; i++) slice(); // no readings: still say so
  }

  function onCharging(on) { // on the charger nobody wears it: time to tidy its flash, which takes seconds
    if (on && storage.getStats && storage.getStats(true).trashBytes > 1000000) storage.compact();
  }

  // btnLoadTimeout: else a long press restarts the watch. Waking by twist would be for nothing at 8 g.
  Bangle.setOptions({ btnLoadTimeout: 0, wakeOnTwist: false, wakeOnFaceUp: false, powerSave: false });
  sample(RATES[50]);
  index = 0;
  Bangle.on("accel", onAccel);
  Bangle.on("charging", onCharging);
  Bangle.on("HRM-raw", function (e) { if (e.isWearing) skin = true; });
  Bangle.on("HRM", function (e) { if (e.confidence >= 50) skin = true; });
  Bangle.on("swipe", function () { if (Bangle.isCharging()) Bangle.showLauncher(); }); // the way out, for technicians
  Bluetooth.removeAllListeners("data");
  Bluetooth.on("data", decoder.feed);
  NRF.on("connect", onConnect);
  NRF.on("disconnect", onDisconnect);
  if (NRF.getSecurityStatus().connected) onConnect();
  setInterval(onButton, 200);
  setInterval(onSecond, 1000);
  draw();
})();
