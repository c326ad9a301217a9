#include "fallwatch_wire.h"

#include <string.h>

#define ALL_FLAGS (FALLWATCH_WORN | FALLWATCH_CHARGING | FALLWATCH_BUTTON_HELD | FALLWATCH_CLIPPED)
#define TYPE_COMMAND 0x20U
#define SAMPLES_HEAD 15U
#define SAMPLE_OCTETS 6U
#define CRC_OCTETS 2U

/* --- numbers, little-endian on any chip ------------------------------------------------------------------ */

static void put_u16(uint8_t *to, uint16_t value)
{
    to[0] = (uint8_t)(value & 0xFFU);
    to[1] = (uint8_t)(value >> 8);
}

static void put_u32(uint8_t *to, uint32_t value)
{
    put_u16(&to[0], (uint16_t)(value & 0xFFFFU));
    put_u16(&to[2], (uint16_t)(value >> 16));
}

static uint16_t get_u16(const uint8_t *from)
{
    return (uint16_t)((uint32_t)from[0] | ((uint32_t)from[1] << 8));
}

static uint32_t get_u32(const uint8_t *from)
{
    return (uint32_t)get_u16(&from[0]) | ((uint32_t)get_u16(&from[2]) << 16);
}

static int16_t get_i16(const uint8_t *from)
{
    const int32_t value = (int32_t)get_u16(from);

    return (int16_t)((value < 0x8000) ? value : (value - 0x10000));
}

static int8_t get_i8(const uint8_t *from)
{
    const int32_t value = (int32_t)from[0];

    return (int8_t)((value < 0x80) ? value : (value - 0x100));
}

/* --- messages -------------------------------------------------------------------------------------------- */

static bool sampling_holds(uint16_t rate_chz, uint8_t range_g)
{
    return (rate_chz != 0U) && ((range_g == 2U) || (range_g == 4U) || (range_g == 8U) || (range_g == 16U));
}

static bool flags_hold(uint8_t flags)
{
    return (flags & (uint8_t)~ALL_FLAGS) == 0U;
}

/* Whether every value lies in its range. */
static bool message_holds(const fallwatch_message *message)
{
    bool holds = true;

    switch (message->kind) {
    case FALLWATCH_MESSAGE_HELLO:
        holds = sampling_holds(message->of.hello.rate_chz, message->of.hello.range_g) &&
                (message->of.hello.tick_hz != 0U);
        break;
    case FALLWATCH_MESSAGE_SAMPLES:
        holds = sampling_holds(message->of.samples.rate_chz, message->of.samples.range_g) &&
                flags_hold(message->of.samples.flags) && (message->of.samples.n >= 1U) &&
                (message->of.samples.n <= FALLWATCH_MAX_SAMPLES);
        break;
    case FALLWATCH_MESSAGE_STATUS:
        holds = (message->of.status.battery_pct <= 100U) && flags_hold(message->of.status.flags);
        break;
    case FALLWATCH_MESSAGE_CONFIGURE:
        holds = sampling_holds(message->of.configure.rate_chz, message->of.configure.range_g);
        break;
    case FALLWATCH_MESSAGE_BUTTON:
    case FALLWATCH_MESSAGE_PROOF:
    case FALLWATCH_MESSAGE_IDENTIFY:
    case FALLWATCH_MESSAGE_ACKNOWLEDGE_BUTTON:
    case FALLWATCH_MESSAGE_PROVE:
    case FALLWATCH_MESSAGE_REASSURE:
        break; /* any value is one */
    default:
        holds = false;
        break;
    }
    return holds;
}

/* Octets of a message's body, of SAMPLES with n samples; 0 for no kind of message. */
static size_t body_octets(uint32_t kind, uint8_t n)
{
    size_t octets = 0U;

    switch (kind) {
    case FALLWATCH_MESSAGE_HELLO:
        octets = 17U;
        break;
    case FALLWATCH_MESSAGE_SAMPLES:
        octets = SAMPLES_HEAD + (SAMPLE_OCTETS * (size_t)n);
        break;
    case FALLWATCH_MESSAGE_STATUS:
    case FALLWATCH_MESSAGE_PROVE:
        octets = 9U;
        break;
    case FALLWATCH_MESSAGE_BUTTON:
        octets = 10U;
        break;
    case FALLWATCH_MESSAGE_PROOF:
        octets = 8U;
        break;
    case FALLWATCH_MESSAGE_IDENTIFY:
        octets = 2U;
        break;
    case FALLWATCH_MESSAGE_ACKNOWLEDGE_BUTTON:
        octets = 5U;
        break;
    case FALLWATCH_MESSAGE_CONFIGURE:
        octets = 4U;
        break;
    case FALLWATCH_MESSAGE_REASSURE:
        octets = 1U;
        break;
    default:
        break;
    }
    return octets;
}

static void put_samples(const fallwatch_samples *samples, uint8_t *body)
{
    put_u16(&body[0], samples->boot);
    put_u32(&body[2], samples->tick);
    put_u32(&body[6], samples->first);
    put_u16(&body[10], samples->rate_chz);
    body[12] = samples->range_g;
    body[13] = samples->flags;
    body[14] = samples->n;
    for (size_t i = 0U; i < samples->n; i++) {
        for (size_t axis = 0U; axis < 3U; axis++) {
            put_u16(&body[SAMPLES_HEAD + (SAMPLE_OCTETS * i) + (2U * axis)], (uint16_t)samples->xyz[i][axis]);
        }
    }
}

static void get_samples(const uint8_t *body, fallwatch_samples *samples)
{
    samples->boot = get_u16(&body[0]);
    samples->tick = get_u32(&body[2]);
    samples->first = get_u32(&body[6]);
    samples->rate_chz = get_u16(&body[10]);
    samples->range_g = body[12];
    samples->flags = body[13];
    samples->n = body[14];
    for (size_t i = 0U; i < samples->n; i++) {
        for (size_t axis = 0U; axis < 3U; axis++) {
            samples->xyz[i][axis] = get_i16(&body[SAMPLES_HEAD + (SAMPLE_OCTETS * i) + (2U * axis)]);
        }
    }
}

fallwatch_result fallwatch_encode_message(const fallwatch_message *message, uint8_t *type, uint8_t *body,
                                          size_t capacity, size_t *octets)
{
    const uint32_t kind = (uint32_t)message->kind;

    if (!message_holds(message)) {
        return FALLWATCH_BAD_VALUE;
    }
    *octets = body_octets(kind, (message->kind == FALLWATCH_MESSAGE_SAMPLES) ? message->of.samples.n : 0U);
    if (*octets > capacity) {
        return FALLWATCH_BAD_VALUE;
    }
    *type = (uint8_t)(kind >> 8);
    if (*type == TYPE_COMMAND) {
        body[0] = (uint8_t)(kind & 0xFFU);
    }
    switch (message->kind) {
    case FALLWATCH_MESSAGE_HELLO:
        put_u16(&body[0], message->of.hello.boot);
        (void)memcpy(&body[2], message->of.hello.firmware, 3U);
        body[5] = message->of.hello.hardware;
        body[6] = message->of.hello.range_g;
        put_u16(&body[7], message->of.hello.rate_chz);
        put_u32(&body[9], message->of.hello.tick_hz);
        put_u32(&body[13], message->of.hello.last_command);
        break;
    case FALLWATCH_MESSAGE_SAMPLES:
        put_samples(&message->of.samples, body);
        break;
    case FALLWATCH_MESSAGE_STATUS:
        body[0] = message->of.status.battery_pct;
        put_u16(&body[1], message->of.status.battery_mv);
        body[3] = (uint8_t)message->of.status.temperature_c;
        body[4] = message->of.status.flags;
        put_u32(&body[5], message->of.status.uptime_s);
        break;
    case FALLWATCH_MESSAGE_BUTTON:
        put_u16(&body[0], message->of.button.boot);
        put_u16(&body[2], message->of.button.press);
        put_u32(&body[4], message->of.button.tick);
        put_u16(&body[8], message->of.button.held_ms);
        break;
    case FALLWATCH_MESSAGE_PROOF:
        (void)memcpy(&body[0], message->of.challenge, 8U);
        break;
    case FALLWATCH_MESSAGE_IDENTIFY:
        body[1] = message->of.identify_s;
        break;
    case FALLWATCH_MESSAGE_ACKNOWLEDGE_BUTTON:
        put_u16(&body[1], message->of.acknowledge_button.boot);
        put_u16(&body[3], message->of.acknowledge_button.press);
        break;
    case FALLWATCH_MESSAGE_PROVE:
        (void)memcpy(&body[1], message->of.challenge, 8U);
        break;
    case FALLWATCH_MESSAGE_CONFIGURE:
        put_u16(&body[1], message->of.configure.rate_chz);
        body[3] = message->of.configure.range_g;
        break;
    case FALLWATCH_MESSAGE_REASSURE:
    default:
        break; /* nothing but the action */
    }
    return FALLWATCH_OK;
}

fallwatch_result fallwatch_decode_message(uint8_t type, const uint8_t *body, size_t octets,
                                          fallwatch_message *message)
{
    uint32_t kind = (uint32_t)type << 8;
    uint8_t n = 0U;

    if ((type == TYPE_COMMAND) && (octets > 0U)) {
        kind |= (uint32_t)body[0];
    }
    if ((kind == (uint32_t)FALLWATCH_MESSAGE_SAMPLES) && (octets >= SAMPLES_HEAD)) {
        n = body[14];
    }
    /* A SAMPLES of more than 30 must not reach the array of 30. */
    if ((octets == 0U) || (octets != body_octets(kind, n)) || (n > FALLWATCH_MAX_SAMPLES)) {
        return FALLWATCH_MALFORMED;
    }
    message->kind = (fallwatch_message_kind)kind;
    switch (message->kind) {
    case FALLWATCH_MESSAGE_HELLO:
        message->of.hello.boot = get_u16(&body[0]);
        (void)memcpy(message->of.hello.firmware, &body[2], 3U);
        message->of.hello.hardware = body[5];
        message->of.hello.range_g = body[6];
        message->of.hello.rate_chz = get_u16(&body[7]);
        message->of.hello.tick_hz = get_u32(&body[9]);
        message->of.hello.last_command = get_u32(&body[13]);
        break;
    case FALLWATCH_MESSAGE_SAMPLES:
        get_samples(body, &message->of.samples);
        break;
    case FALLWATCH_MESSAGE_STATUS:
        message->of.status.battery_pct = body[0];
        message->of.status.battery_mv = get_u16(&body[1]);
        message->of.status.temperature_c = get_i8(&body[3]);
        message->of.status.flags = body[4];
        message->of.status.uptime_s = get_u32(&body[5]);
        break;
    case FALLWATCH_MESSAGE_BUTTON:
        message->of.button.boot = get_u16(&body[0]);
        message->of.button.press = get_u16(&body[2]);
        message->of.button.tick = get_u32(&body[4]);
        message->of.button.held_ms = get_u16(&body[8]);
        break;
    case FALLWATCH_MESSAGE_PROOF:
        (void)memcpy(message->of.challenge, &body[0], 8U);
        break;
    case FALLWATCH_MESSAGE_IDENTIFY:
        message->of.identify_s = body[1];
        break;
    case FALLWATCH_MESSAGE_ACKNOWLEDGE_BUTTON:
        message->of.acknowledge_button.boot = get_u16(&body[1]);
        message->of.acknowledge_button.press = get_u16(&body[3]);
        break;
    case FALLWATCH_MESSAGE_PROVE:
        (void)memcpy(message->of.challenge, &body[1], 8U);
        break;
    case FALLWATCH_MESSAGE_CONFIGURE:
        message->of.configure.rate_chz = get_u16(&body[1]);
        message->of.configure.range_g = body[3];
        break;
    case FALLWATCH_MESSAGE_REASSURE:
    default:
        break; /* nothing but the action */
    }
    return message_holds(message) ? FALLWATCH_OK : FALLWATCH_MALFORMED;
}

/* --- packets --------------------------------------------------------------------------------------------- */

static bool may_be_in_id(uint8_t octet)
{
    return ((octet >= 0x30U) && (octet <= 0x39U)) || ((octet >= 0x41U) && (octet <= 0x5AU)) ||
           ((octet >= 0x61U) && (octet <= 0x7AU)) || (octet == 0x2DU); /* 0-9 A-Z a-z - */
}

fallwatch_result fallwatch_read_header(const uint8_t *packet, size_t octets, fallwatch_header *header)
{
    size_t length = 0U;

    if ((octets < FALLWATCH_MIN_PACKET) || (octets > FALLWATCH_MAX_PACKET) || (packet[0] != FALLWATCH_VERSION)) {
        return FALLWATCH_MALFORMED;
    }
    while ((length < 8U) && may_be_in_id(packet[2U + length])) {
        header->wearable[length] = (char)packet[2U + length];
        length++;
    }
    if (length == 0U) {
        return FALLWATCH_MALFORMED;
    }
    header->wearable[length] = '\0';
    for (size_t i = length; i < 8U; i++) {
        if (packet[2U + i] != 0U) {
            return FALLWATCH_MALFORMED;
        }
    }
    header->type = packet[1];
    header->counter = get_u32(&packet[10]);
    return FALLWATCH_OK;
}

/* --- frames ---------------------------------------------------------------------------------------------- */

/* CRC-16/CCITT-FALSE, bit by bit: 2000 steps for the longest frame, and no table. */
static uint16_t crc16(const uint8_t *data, size_t octets)
{
    uint32_t crc = 0xFFFFU;

    for (size_t i = 0U; i < octets; i++) {
        crc ^= (uint32_t)data[i] << 8;
        for (uint32_t bit = 0U; bit < 8U; bit++) {
            crc = ((crc & 0x8000U) != 0U) ? ((crc << 1) ^ 0x1021U) : (crc << 1);
        }
    }
    return (uint16_t)(crc & 0xFFFFU);
}

static bool packet_fits(size_t octets)
{
    return (octets >= FALLWATCH_MIN_PACKET) && (octets <= FALLWATCH_MAX_PACKET);
}

/* Octets of a frame before its CRC; 0 for no frame. */
static size_t frame_octets(const fallwatch_frame *frame)
{
    size_t octets = 0U;

    switch (frame->kind) {
    case FALLWATCH_FRAME_DONGLE_HELLO:
    case FALLWATCH_FRAME_DONGLE_STATUS:
        octets = 13U;
        break;
    case FALLWATCH_FRAME_UPLINK:
        octets = packet_fits(frame->of.carried.octets) ? (2U + frame->of.carried.octets) : 0U;
        break;
    case FALLWATCH_FRAME_DOWNLINK:
        octets = packet_fits(frame->of.carried.octets) ? (1U + frame->of.carried.octets) : 0U;
        break;
    case FALLWATCH_FRAME_DONGLE_ASK:
        octets = 1U;
        break;
    default:
        break;
    }
    return octets;
}

fallwatch_result fallwatch_encode_frame(const fallwatch_frame *frame, uint8_t *line, size_t capacity,
                                        size_t *octets)
{
    uint8_t *const data = &line[1]; /* the frame, in the place where COBS leaves it */
    size_t length = frame_octets(frame);
    size_t code_at = 0U;

    if ((length == 0U) || (capacity < (length + CRC_OCTETS + 2U))) {
        return FALLWATCH_BAD_VALUE;
    }
    data[0] = (uint8_t)frame->kind;
    switch (frame->kind) {
    case FALLWATCH_FRAME_DONGLE_HELLO:
        data[1] = frame->of.dongle_hello.version;
        (void)memcpy(&data[2], frame->of.dongle_hello.firmware, 3U);
        (void)memcpy(&data[5], frame->of.dongle_hello.serial, 8U);
        break;
    case FALLWATCH_FRAME_DONGLE_STATUS:
        put_u32(&data[1], frame->of.dongle_status.uptime_ms);
        put_u32(&data[5], frame->of.dongle_status.frames_received);
        put_u32(&data[9], frame->of.dongle_status.frames_dropped);
        break;
    case FALLWATCH_FRAME_UPLINK:
        data[1] = (uint8_t)frame->of.carried.rssi_dbm;
        (void)memcpy(&data[2], frame->of.carried.packet, frame->of.carried.octets);
        break;
    case FALLWATCH_FRAME_DOWNLINK:
        (void)memcpy(&data[1], frame->of.carried.packet, frame->of.carried.octets);
        break;
    case FALLWATCH_FRAME_DONGLE_ASK:
    default:
        break; /* nothing but the kind */
    }
    put_u16(&data[length], crc16(data, length));
    length += CRC_OCTETS;
    /* COBS: each 00 becomes the distance to the next. No distance passes 251, so no octet is ever put between. */
    for (size_t i = 1U; i <= length; i++) {
        if (line[i] == 0U) {
            line[code_at] = (uint8_t)(i - code_at);
            code_at = i;
        }
    }
    line[code_at] = (uint8_t)((length + 1U) - code_at);
    line[length + 1U] = 0U;
    *octets = length + 2U;
    return FALLWATCH_OK;
}

/* Undo COBS in place: the frame is then run[1] and on. False if a distance leads beyond the run. */
static bool uncobs(uint8_t *run, size_t length)
{
    size_t at = 0U;

    while (at < length) {
        const size_t distance = (size_t)run[at]; /* never 0: 00 ends a run */

        run[at] = 0U;
        at += distance;
    }
    return at == length;
}

static bool decode_frame(const uint8_t *data, size_t length, fallwatch_frame *frame)
{
    switch (data[0]) {
    case FALLWATCH_FRAME_DONGLE_HELLO:
        if (length != 13U) {
            return false;
        }
        frame->kind = FALLWATCH_FRAME_DONGLE_HELLO;
        frame->of.dongle_hello.version = data[1];
        (void)memcpy(frame->of.dongle_hello.firmware, &data[2], 3U);
        (void)memcpy(frame->of.dongle_hello.serial, &data[5], 8U);
        return true;
    case FALLWATCH_FRAME_DONGLE_STATUS:
        if (length != 13U) {
            return false;
        }
        frame->kind = FALLWATCH_FRAME_DONGLE_STATUS;
        frame->of.dongle_status.uptime_ms = get_u32(&data[1]);
        frame->of.dongle_status.frames_received = get_u32(&data[5]);
        frame->of.dongle_status.frames_dropped = get_u32(&data[9]);
        return true;
    case FALLWATCH_FRAME_UPLINK:
        if ((length < 2U) || !packet_fits(length - 2U)) {
            return false;
        }
        frame->kind = FALLWATCH_FRAME_UPLINK;
        frame->of.carried.rssi_dbm = get_i8(&data[1]);
        frame->of.carried.packet = &data[2];
        frame->of.carried.octets = length - 2U;
        return true;
    case FALLWATCH_FRAME_DOWNLINK:
        if (!packet_fits(length - 1U)) {
            return false;
        }
        frame->kind = FALLWATCH_FRAME_DOWNLINK;
        frame->of.carried.rssi_dbm = 0;
        frame->of.carried.packet = &data[1];
        frame->of.carried.octets = length - 1U;
        return true;
    case FALLWATCH_FRAME_DONGLE_ASK:
        frame->kind = FALLWATCH_FRAME_DONGLE_ASK;
        return length == 1U;
    default:
        return false;
    }
}

/* Whether a whole run is a frame: at least a distance, a kind and a CRC, which is right. */
static bool decode_run(uint8_t *run, size_t run_length, fallwatch_frame *frame)
{
    if ((run_length < (2U + CRC_OCTETS)) || !uncobs(run, run_length)) {
        return false;
    }
    const uint8_t *const data = &run[1];
    const size_t length = (run_length - 1U) - CRC_OCTETS;

    return (crc16(data, length) == get_u16(&data[length])) && decode_frame(data, length, frame);
}

void fallwatch_decoder_start(fallwatch_decoder *decoder)
{
    decoder->length = 0U;
    decoder->overrun = false;
    decoder->bad_frames = 0U;
    decoder->bad_octets = 0U;
}

fallwatch_result fallwatch_decoder_push(fallwatch_decoder *decoder, uint8_t octet, fallwatch_frame *frame)
{
    const size_t length = decoder->length;
    const bool overrun = decoder->overrun;

    if (octet != 0U) {
        if (length < FALLWATCH_MAX_RUN) {
            decoder->run[length] = octet;
            decoder->length++;
        } else {
            decoder->overrun = true; /* the run stays full, and what follows is only counted */
            decoder->bad_octets += overrun ? 1U : (FALLWATCH_MAX_RUN + 1U);
        }
        return FALLWATCH_MORE;
    }
    decoder->length = 0U;
    decoder->overrun = false;
    if (length == 0U) {
        return FALLWATCH_MORE; /* an empty run means nothing */
    }
    if (!overrun && decode_run(decoder->run, length, frame)) {
        return FALLWATCH_OK;
    }
    decoder->bad_frames++;
    decoder->bad_octets += overrun ? 0U : (uint32_t)length;
    return FALLWATCH_MALFORMED;
}
