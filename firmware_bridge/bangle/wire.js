/* The fallwatch wire format (../PROTOCOL.md) for Espruino: octets in, octets out. Knows no watch, opens nothing.

Octets are Uint8Array. Loops over octets are slow in Espruino, which reads its source as it runs: where a native
function does the same (set, indexOf, crypto), it is used. */

var VERSION = 1, TICK_HZ = 32768, MIC = 8, HEADER = 14;
var MAX_FRAME = 250, MAX_PACKET = 246, MIN_PACKET = HEADER + MIC, MAX_COUNTER = 4294967295;
var STEP = 64; // counters reserved in flash at a time
var CRC_AT_ONCE = 48; // octets: some milliseconds, so that no sample waits
var KIND = { HELLO: 1, STATUS: 2, UPLINK: 16, DOWNLINK: 32, ASK: 33 };
var TYPE = { HELLO: 1, SAMPLES: 2, STATUS: 3, BUTTON: 4, PROOF: 5, COMMAND: 32 };
var WORN = 1, CHARGING = 2, BUTTON = 4, CLIPPED = 8;

// --- octets ---------------------------------------------------------------------------------------------

function put16(a, at, v) { a[at] = v; a[at + 1] = v >> 8; }
function put32(a, at, v) { put16(a, at, v & 65535); put16(a, at + 2, Math.floor(v / 65536) & 65535); }
function get16(a, at) { return a[at] | a[at + 1] << 8; }
function get32(a, at) { return get16(a, at) + get16(a, at + 2) * 65536; }

function fromHex(text) {
  var a = new Uint8Array(text.length >> 1);
  for (var i = 0; i < a.length; i++) a[i] = parseInt(text.substr(2 * i, 2), 16);
  return a;
}

function toHex(a) {
  var text = "";
  for (var i = 0; i < a.length; i++) text += (256 + a[i]).toString(16).substr(1);
  return text;
}

function isWearable(id) {
  var known = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-";
  if (typeof id != "string" || id.length < 1 || id.length > 8) return false;
  for (var i = 0; i < id.length; i++) if (known.indexOf(id.charAt(i)) < 0) return false;
  return true;
}

// --- frames: COBS, CRC-16/CCITT-FALSE -------------------------------------------------------------------

var crcTable = new Uint16Array(256);
(function () {
  for (var i = 0; i < 256; i++) {
    var c = i << 8;
    for (var bit = 0; bit < 8; bit++) c = c & 32768 ? c << 1 ^ 4129 : c << 1;
    crcTable[i] = c;
  }
})();

/* The CRC over a[from] to a[to - 1], going on from crc. */
function crc16(a, from, to, crc) {
  for (var i = from; i < to; i++) crc = (crc << 8 ^ crcTable[crc >> 8 ^ a[i]]) & 65535;
  return crc;
}

/* Frames are at most 250 octets, so COBS adds exactly one in front; then comes the closing zero. */
function stuff(data) {
  var out = new Uint8Array(data.length + 2), mark = 0, zero;
  out.set(data, 1);
  while ((zero = out.indexOf(0, mark + 1)) >= 0 && zero <= data.length) {
    out[mark] = zero - mark;
    mark = zero;
  }
  out[mark] = data.length + 1 - mark;
  return out;
}

/* A run without zeros back to data, or undefined. */
function unstuff(run) {
  var out = run.slice(1), mark = 0, n = run.length;
  while (mark < n) {
    var next = mark + run[mark];
    if (next > n) return undefined;
    if (next < n) out[next - 1] = 0;
    mark = next;
  }
  return out;
}

/* A frame in slices: step() does some milliseconds of work, and returns the octets for the line at last. */
function Framing(kind, body) {
  var data = new Uint8Array(body.length + 3), at = 0, crc = 65535, end = body.length + 1;
  data[0] = kind;
  data.set(body, 1);
  return { step: function () {
    if (at < end) {
      var to = Math.min(at + CRC_AT_ONCE, end);
      crc = crc16(data, at, to, crc);
      at = to;
      return undefined;
    }
    put16(data, end, crc);
    return stuff(data);
  } };
}

function frame(kind, body) {
  var framing = Framing(kind, body), line;
  while (!(line = framing.step())) ;
  return line;
}

/* Line octets to frames; noise costs at most the frames it touches. feed() takes a string or octets and calls
onFrame(kind, body). */
function Decoder(onFrame) {
  var run = new Uint8Array(MAX_FRAME + 1), n = 0, over = false;
  var self = { badFrames: 0, feed: function (data) {
    var text = typeof data == "string";
    for (var i = 0; i < data.length; i++) {
      var octet = text ? data.charCodeAt(i) & 255 : data[i];
      if (octet) {
        if (n == run.length) over = true;
        else run[n++] = octet;
        continue;
      }
      if (n) {
        var ok = !over && take(run.slice(0, n));
        if (!ok) self.badFrames++;
      }
      n = 0;
      over = false;
    }
  } };
  function take(octets) {
    var data = octets.length >= 4 && unstuff(octets);
    if (!data || data.length < 3) return false;
    var end = data.length - 2, kind = data[0], size = end - 1;
    if (crc16(data, 0, end, 65535) != get16(data, end)) return false;
    if (kind == KIND.DOWNLINK ? size < MIN_PACKET || size > MAX_PACKET : kind != KIND.ASK || size) return false;
    onFrame(kind, data.slice(1, end));
    return true;
  }
  return self;
}

function dongleHello(firmware, serial) {
  var body = new Uint8Array(12);
  body[0] = VERSION;
  body.set(firmware, 1);
  for (var i = 0; i < 8; i++) body[4 + i] = serial.charCodeAt(i);
  return body;
}

function dongleStatus(uptime_ms, received, dropped) {
  var body = new Uint8Array(12);
  put32(body, 0, uptime_ms);
  put32(body, 4, received);
  put32(body, 8, dropped);
  return body;
}

// --- messages -------------------------------------------------------------------------------------------

function hello(m) {
  var a = new Uint8Array(17);
  put16(a, 0, m.boot);
  a.set(m.firmware, 2);
  a[5] = m.hardware;
  a[6] = m.range_g;
  put16(a, 7, m.rate_chz);
  put32(a, 9, TICK_HZ);
  put32(a, 13, m.last_command);
  return a;
}

/* xyz: Int16Array with n samples in it, as they are on the wire: Espruino and the wire are little-endian. */
function samples(m) {
  var a = new Uint8Array(15 + 6 * m.n);
  put16(a, 0, m.boot);
  put32(a, 2, m.tick);
  put32(a, 6, m.first);
  put16(a, 10, m.rate_chz);
  a[12] = m.range_g;
  a[13] = m.flags;
  a[14] = m.n;
  a.set(new Uint8Array(m.xyz.buffer, 0, 6 * m.n), 15);
  return a;
}

function status(m) {
  var a = new Uint8Array(9);
  a[0] = m.battery_pct;
  put16(a, 1, m.battery_mv);
  a[3] = m.temperature_c;
  a[4] = m.flags;
  put32(a, 5, m.uptime_s);
  return a;
}

function button(m) {
  var a = new Uint8Array(10);
  put16(a, 0, m.boot);
  put16(a, 2, m.press);
  put32(a, 4, m.tick);
  put16(a, 8, m.held_ms);
  return a;
}

/* A command's body to an object, or undefined. */
function command(a) {
  var n = a.length;
  if (a[0] == 1 && n == 2) return { action: "identify", seconds: a[1] };
  if (a[0] == 2 && n == 5) return { action: "acknowledge", boot: get16(a, 1), press: get16(a, 3) };
  if (a[0] == 3 && n == 9) return { action: "prove", challenge: a.slice(1) };
  if (a[0] == 4 && n == 4) {
    var rate_chz = get16(a, 1), range_g = a[3];
    if (rate_chz && [2, 4, 8, 16].indexOf(range_g) >= 0)
      return { action: "configure", rate_chz: rate_chz, range_g: range_g };
  }
  if (a[0] == 5 && n == 1) return { action: "reassure" };
  return undefined;
}

// --- AES-128-CCM ----------------------------------------------------------------------------------------

var sbox = new Uint8Array(256); // FIPS 197, 5.1.1: the inverse in GF(2^8), then an affine map
(function () {
  var p = 1, q = 1;
  do {
    p = (p ^ p << 1 ^ (p & 128 ? 283 : 0)) & 255; // times 3
    q ^= q << 1; // divided by 3
    q ^= q << 2;
    q ^= q << 4;
    q &= 255;
    if (q & 128) q ^= 9;
    sbox[p] = q ^ (q << 1 | q >> 7) ^ (q << 2 | q >> 6) ^ (q << 3 | q >> 5) ^ (q << 4 | q >> 4) ^ 99;
  } while (p != 1);
  sbox[0] = 99;
})();

/* AES-128 of one block, in plain JavaScript: too slow for a stream, needed a few times per start. */
function Aes(key) {
  var w = new Uint8Array(176), rcon = 1, i;
  w.set(key);
  for (i = 16; i < 176; i++) {
    var t = w[i - 4];
    if (i % 16 < 4) {
      t = sbox[w[i % 4 == 3 ? i - 7 : i - 3]];
      if (i % 16 == 0) {
        t ^= rcon;
        rcon = rcon << 1 ^ (rcon & 128 ? 283 : 0);
      }
    }
    w[i] = w[i - 16] ^ t;
  }
  return function (block) {
    var s = block.slice(0, 16), t = new Uint8Array(16), i, round;
    for (i = 0; i < 16; i++) s[i] ^= w[i];
    for (round = 1; round <= 10; round++) {
      for (i = 0; i < 16; i++) t[i] = sbox[s[i * 5 & 15]];
      for (i = 0; i < 16; i++) {
        if (round < 10) {
          var c = i & 12, a = t[i], b = t[c | i + 1 & 3];
          var x = (a ^ b) << 1;
          s[i] = x ^ (x & 256 ? 283 : 0) ^ b ^ t[c | i + 2 & 3] ^ t[c | i + 3 & 3];
        } else s[i] = t[i];
        s[i] ^= w[16 * round + i];
      }
    }
    return s;
  };
}

function xor16(a, at, b) { for (var i = 0; i < 16; i++) a[at + i] ^= b[i]; }

/* CCM with our header, from the watch's own CCM, which knows no header (Espruino 2v25: AES.ccmEncrypt).

Its ciphertext is ours, as the header changes the MIC alone. Its tag under a fixed, private nonce is
  T(p) = E(..E(E(Y ^ p1) ^ p2)..) ^ S,
with Y = E(its first block, which depends on the length alone) and S = E(counter block 0): both are computed here
once, in plain JavaScript. With p1 = Y ^ B0 it is the CBC-MAC of any B0 and all that follows. Nothing made under that
nonce leaves the watch. No real packet shares it: their nonces begin with 1 or 2.

Returns undefined where the watch has no such function, or a test of it fails. */
function Ccm(key, native) {
  if (!native || !native.ccmEncrypt) return undefined;
  var block = Aes(key), fixed = new Uint8Array(13), first = {};
  var s = new Uint8Array(16);
  fixed[0] = 255;
  s[0] = 1;
  s.set(fixed, 1);
  s = block(s);

  function mac(data) { // data: whole blocks, changed on return
    var n = data.length;
    if (!first[n]) {
      var b = new Uint8Array(16);
      b[0] = 57; // tag of 16 octets, length in 2, no header
      b.set(fixed, 1);
      b[14] = n >> 8;
      b[15] = n;
      first[n] = block(b);
    }
    xor16(data, 0, first[n]);
    var tag = new Uint8Array(native.ccmEncrypt(data, key, fixed, 16).tag);
    xor16(tag, 0, s);
    return tag;
  }

  function mic(nonce, header, body) {
    var n = body.length, data = new Uint8Array(32 + (n + 15 & 240)), a = new Uint8Array(16);
    data[0] = 89; // header, MIC of 8 octets, length in 2
    data.set(nonce, 1);
    data[14] = n >> 8;
    data[15] = n;
    data[17] = HEADER; // and its length, 2 octets: exactly one block
    data.set(header, 18);
    data.set(body, 32);
    var tag = mac(data);
    a[0] = 1;
    a.set(nonce, 1);
    xor16(tag, 0, mac(a));
    return tag.slice(0, MIC);
  }

  function crypt(nonce, data) { return new Uint8Array(native.ccmEncrypt(data, key, nonce, 16).data); }

  var probe = block(new Uint8Array(16)), found;
  try { found = mac(new Uint8Array(16)); } catch (e) { return undefined; }
  if (toHex(found) != toHex(probe)) return undefined;
  return {
    check: toHex(probe).substr(0, 12), // tells keys apart, and nothing else: a block no packet has
    seal: function (nonce, header, body) {
      var out = new Uint8Array(HEADER + body.length + MIC);
      out.set(header);
      out.set(crypt(nonce, body), HEADER);
      out.set(mic(nonce, header, body), HEADER + body.length);
      return out;
    },
    open: function (nonce, packet) {
      var end = packet.length - MIC, body = crypt(nonce, packet.slice(HEADER, end)), differs = 0;
      var want = mic(nonce, packet.slice(0, HEADER), body);
      for (var i = 0; i < MIC; i++) differs |= want[i] ^ packet[end + i];
      return differs ? undefined : body;
    }
  };
}

// --- packets and counters -------------------------------------------------------------------------------

/* The wearable's side. state: {u, c, b}, counters reserved, last command, boot. save(state) puts it in flash
before any of it is used; what it throws goes to the caller, and nothing was sealed or obeyed. */
function Session(wearable, ccm, state, save) {
  var id = new Uint8Array(8), used = state.u, reserved = state.u, last = state.c;
  for (var i = 0; i < wearable.length; i++) id[i] = wearable.charCodeAt(i);
  var self = { boot: state.b + 1 & 65535, lastCommand: last, forged: 0, stale: 0 };

  function nonceOf(direction, header) {
    var nonce = new Uint8Array(13);
    nonce[0] = direction;
    nonce.set(header.slice(2, HEADER), 1);
    return nonce;
  }

  self.start = function () { save({ u: reserved, c: last, b: self.boot }); };

  self.seal = function (type, body) {
    if (used >= MAX_COUNTER) return undefined; // pair again
    if (used >= reserved) {
      var ahead = Math.min(used + STEP, MAX_COUNTER);
      save({ u: ahead, c: last, b: self.boot });
      reserved = ahead;
    }
    used++;
    var header = new Uint8Array(HEADER);
    header[0] = VERSION;
    header[1] = type;
    header.set(id, 2);
    put32(header, 10, used);
    return ccm.seal(nonceOf(1, header), header, body);
  };

  self.open = function (packet) {
    if (packet[0] != VERSION || packet[1] != TYPE.COMMAND) return undefined;
    for (var i = 0; i < 8; i++) if (packet[2 + i] != id[i]) return undefined;
    var counter = get32(packet, 10);
    if (counter <= last) { // an old one costs no work
      self.stale++;
      return undefined;
    }
    var body = ccm.open(nonceOf(2, packet), packet);
    if (!body) {
      self.forged++;
      return undefined;
    }
    save({ u: reserved, c: counter, b: self.boot });
    self.lastCommand = last = counter;
    return command(body);
  };
  return self;
}

// --- time -----------------------------------------------------------------------------------------------

/* Seconds since start from a clock that people may set: a step back, or by more than a minute, is no time. */
function Clock(now_s) {
  var last = now_s, sum = 0;
  return function (now_s) {
    var step = now_s - last;
    last = now_s;
    if (step > 0 && step <= 60) sum += step;
    return sum;
  };
}

/* Which polls were missed. The watch reads its sensor on time but tells us when it has time, and of several readings
tells the last alone: a reading that comes so many periods late comes instead of so many. `due_s` follows the
earliest arrivals; it creeps later by 1/500 period a reading, which covers what the period is off by. */
function Pace(period_s) {
  var due_s, self = {};
  self.take = function (now_s) { // number of readings missed before this one
    if (due_s === undefined || now_s < due_s) due_s = now_s;
    var missed = Math.floor((now_s - due_s) / period_s + 0.15);
    self.at_s = due_s + missed * period_s;
    due_s = self.at_s + period_s * 1.002;
    return missed;
  };
  return self;
}

exports.TICK_HZ = TICK_HZ;
exports.KIND = KIND;
exports.TYPE = TYPE;
exports.WORN = WORN;
exports.CHARGING = CHARGING;
exports.BUTTON = BUTTON;
exports.CLIPPED = CLIPPED;
exports.fromHex = fromHex;
exports.toHex = toHex;
exports.isWearable = isWearable;
exports.Framing = Framing;
exports.frame = frame;
exports.Decoder = Decoder;
exports.dongleHello = dongleHello;
exports.dongleStatus = dongleStatus;
exports.hello = hello;
exports.samples = samples;
exports.status = status;
exports.button = button;
exports.command = command;
exports.Aes = Aes;
exports.Ccm = Ccm;
exports.Session = Session;
exports.Clock = Clock;
exports.Pace = Pace;
