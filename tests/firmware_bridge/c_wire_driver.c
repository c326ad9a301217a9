/* A wearable, its flash and a reader of frames behind stdin and stdout, for test_c_wire.py.
 *
 * One request a line, words between spaces, numbers decimal, octets hexadecimal, "-" for none; one line answers.
 * Inputs lie in blocks of their exact size and outputs have no spare octet, so that a sanitizer sees the first
 * octet too far.
 */
#include "fallwatch_aes.h"
#include "fallwatch_seal.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const RESULTS[] = {"OK",     "MORE",  "BAD_VALUE",  "MALFORMED", "NOT_OURS",
                                      "FORGED", "STALE", "NOT_STORED", "USED_UP",   "CIPHER_FAILED"};

static fallwatch_counters flash;
static int saves_to_cut;  /* so many saves from now the power goes; 0 for never */
static bool stored_first; /* ... after the flash took that save, or before */
static int saves_to_fail;
static int blocks_to_fail; /* so many blocks from now the AES hook fails; 0 for never */
static jmp_buf power_loss;

static bool save(void *context, const fallwatch_counters *counters)
{
    (void)context;
    if (saves_to_fail > 0) {
        saves_to_fail--;
        return false;
    }
    const bool cut = (saves_to_cut > 0) && (--saves_to_cut == 0);
    if (!cut || stored_first) {
        flash = *counters;
    }
    if (cut) {
        longjmp(power_loss, 1);
    }
    return true;
}

static bool aes128(void *context, const uint8_t *key, const uint8_t *in, uint8_t *out)
{
    const bool fails = (blocks_to_fail > 0) && (--blocks_to_fail == 0);

    return !fails && fallwatch_aes128(context, key, in, out);
}

/* --- words ------------------------------------------------------------------------------------------------- */

static char *word(void)
{
    char *found = strtok(NULL, " \n");

    if (found == NULL) {
        abort();
    }
    return found;
}

static long long number(void)
{
    return strtoll(word(), NULL, 10);
}

static uint8_t *octets_word(size_t *octets)
{
    const char *hex = word();
    *octets = (hex[0] == '-') ? 0U : strlen(hex) / 2U;
    uint8_t *block = malloc(*octets); /* exact: one octet more is a finding */

    for (size_t i = 0U; i < *octets; i++) {
        const char pair[3] = {hex[2U * i], hex[(2U * i) + 1U], '\0'};
        block[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return block;
}

static void fixed_word(uint8_t *to, size_t octets)
{
    size_t length;
    uint8_t *block = octets_word(&length);

    if (length != octets) {
        abort();
    }
    memcpy(to, block, octets);
    free(block);
}

static void say_octets(const uint8_t *octets, size_t length)
{
    putchar(' ');
    if (length == 0U) {
        putchar('-');
    }
    for (size_t i = 0U; i < length; i++) {
        putchar("0123456789abcdef"[octets[i] >> 4]);
        putchar("0123456789abcdef"[octets[i] & 0x0FU]);
    }
}

/* --- messages and frames as words -------------------------------------------------------------------------- */

static void message_words(fallwatch_message *m)
{
    memset(m, 0xA5, sizeof *m);
    m->kind = (fallwatch_message_kind)number();
    switch (m->kind) {
    case FALLWATCH_MESSAGE_HELLO:
        m->of.hello.boot = (uint16_t)number();
        fixed_word(m->of.hello.firmware, 3U);
        m->of.hello.hardware = (uint8_t)number();
        m->of.hello.range_g = (uint8_t)number();
        m->of.hello.rate_chz = (uint16_t)number();
        m->of.hello.tick_hz = (uint32_t)number();
        m->of.hello.last_command = (uint32_t)number();
        break;
    case FALLWATCH_MESSAGE_SAMPLES:
        m->of.samples.boot = (uint16_t)number();
        m->of.samples.tick = (uint32_t)number();
        m->of.samples.first = (uint32_t)number();
        m->of.samples.rate_chz = (uint16_t)number();
        m->of.samples.range_g = (uint8_t)number();
        m->of.samples.flags = (uint8_t)number();
        m->of.samples.n = (uint8_t)number();
        for (size_t i = 0U; (i < m->of.samples.n) && (i < FALLWATCH_MAX_SAMPLES); i++) {
            for (size_t axis = 0U; axis < 3U; axis++) {
                m->of.samples.xyz[i][axis] = (int16_t)number();
            }
        }
        break;
    case FALLWATCH_MESSAGE_STATUS:
        m->of.status.battery_pct = (uint8_t)number();
        m->of.status.battery_mv = (uint16_t)number();
        m->of.status.temperature_c = (int8_t)number();
        m->of.status.flags = (uint8_t)number();
        m->of.status.uptime_s = (uint32_t)number();
        break;
    case FALLWATCH_MESSAGE_BUTTON:
        m->of.button.boot = (uint16_t)number();
        m->of.button.press = (uint16_t)number();
        m->of.button.tick = (uint32_t)number();
        m->of.button.held_ms = (uint16_t)number();
        break;
    case FALLWATCH_MESSAGE_PROOF:
    case FALLWATCH_MESSAGE_PROVE:
        fixed_word(m->of.challenge, 8U);
        break;
    case FALLWATCH_MESSAGE_IDENTIFY:
        m->of.identify_s = (uint8_t)number();
        break;
    case FALLWATCH_MESSAGE_ACKNOWLEDGE_BUTTON:
        m->of.acknowledge_button.boot = (uint16_t)number();
        m->of.acknowledge_button.press = (uint16_t)number();
        break;
    case FALLWATCH_MESSAGE_CONFIGURE:
        m->of.configure.rate_chz = (uint16_t)number();
        m->of.configure.range_g = (uint8_t)number();
        break;
    default:
        break;
    }
}

static void say_message(const fallwatch_message *m)
{
    printf(" %d", (int)m->kind);
    switch (m->kind) {
    case FALLWATCH_MESSAGE_HELLO:
        printf(" %u", m->of.hello.boot);
        say_octets(m->of.hello.firmware, 3U);
        printf(" %u %u %u %lu %lu", m->of.hello.hardware, m->of.hello.range_g, m->of.hello.rate_chz,
               (unsigned long)m->of.hello.tick_hz, (unsigned long)m->of.hello.last_command);
        break;
    case FALLWATCH_MESSAGE_SAMPLES:
        printf(" %u %lu %lu %u %u %u %u", m->of.samples.boot, (unsigned long)m->of.samples.tick,
               (unsigned long)m->of.samples.first, m->of.samples.rate_chz, m->of.samples.range_g,
               m->of.samples.flags, m->of.samples.n);
        for (size_t i = 0U; i < m->of.samples.n; i++) {
            for (size_t axis = 0U; axis < 3U; axis++) {
                printf(" %d", m->of.samples.xyz[i][axis]);
            }
        }
        break;
    case FALLWATCH_MESSAGE_STATUS:
        printf(" %u %u %d %u %lu", m->of.status.battery_pct, m->of.status.battery_mv,
               m->of.status.temperature_c, m->of.status.flags, (unsigned long)m->of.status.uptime_s);
        break;
    case FALLWATCH_MESSAGE_BUTTON:
        printf(" %u %u %lu %u", m->of.button.boot, m->of.button.press, (unsigned long)m->of.button.tick,
               m->of.button.held_ms);
        break;
    case FALLWATCH_MESSAGE_PROOF:
    case FALLWATCH_MESSAGE_PROVE:
        say_octets(m->of.challenge, 8U);
        break;
    case FALLWATCH_MESSAGE_IDENTIFY:
        printf(" %u", m->of.identify_s);
        break;
    case FALLWATCH_MESSAGE_ACKNOWLEDGE_BUTTON:
        printf(" %u %u", m->of.acknowledge_button.boot, m->of.acknowledge_button.press);
        break;
    case FALLWATCH_MESSAGE_CONFIGURE:
        printf(" %u %u", m->of.configure.rate_chz, m->of.configure.range_g);
        break;
    default:
        break;
    }
}

/* A carried packet is lent by the caller until the frame is encoded. */
static uint8_t *frame_words(fallwatch_frame *f)
{
    uint8_t *packet = NULL;

    memset(f, 0xA5, sizeof *f);
    f->kind = (fallwatch_frame_kind)number();
    switch (f->kind) {
    case FALLWATCH_FRAME_DONGLE_HELLO:
        f->of.dongle_hello.version = (uint8_t)number();
        fixed_word(f->of.dongle_hello.firmware, 3U);
        fixed_word(f->of.dongle_hello.serial, 8U);
        break;
    case FALLWATCH_FRAME_DONGLE_STATUS:
        f->of.dongle_status.uptime_ms = (uint32_t)number();
        f->of.dongle_status.frames_received = (uint32_t)number();
        f->of.dongle_status.frames_dropped = (uint32_t)number();
        break;
    case FALLWATCH_FRAME_UPLINK:
        f->of.carried.rssi_dbm = (int8_t)number();
        packet = octets_word(&f->of.carried.octets);
        break;
    case FALLWATCH_FRAME_DOWNLINK:
        packet = octets_word(&f->of.carried.octets);
        break;
    default:
        break;
    }
    if (packet != NULL) {
        f->of.carried.packet = packet;
    }
    return packet;
}

static void say_frame(const fallwatch_frame *f)
{
    printf(" ; %d", (int)f->kind);
    switch (f->kind) {
    case FALLWATCH_FRAME_DONGLE_HELLO:
        printf(" %u", f->of.dongle_hello.version);
        say_octets(f->of.dongle_hello.firmware, 3U);
        say_octets(f->of.dongle_hello.serial, 8U);
        break;
    case FALLWATCH_FRAME_DONGLE_STATUS:
        printf(" %lu %lu %lu", (unsigned long)f->of.dongle_status.uptime_ms,
               (unsigned long)f->of.dongle_status.frames_received,
               (unsigned long)f->of.dongle_status.frames_dropped);
        break;
    case FALLWATCH_FRAME_UPLINK:
        printf(" %d", f->of.carried.rssi_dbm);
        say_octets(f->of.carried.packet, f->of.carried.octets);
        break;
    case FALLWATCH_FRAME_DOWNLINK:
        say_octets(f->of.carried.packet, f->of.carried.octets);
        break;
    default:
        break;
    }
}

/* --- requests ---------------------------------------------------------------------------------------------- */

static fallwatch_session session;
static fallwatch_decoder decoder;
static char wearable[16];
static uint8_t *out;
static uint8_t *in;
static uint8_t key[FALLWATCH_KEY_OCTETS];
static const fallwatch_hooks HOOKS = {aes128, save, NULL};

/* An output of `capacity` octets exactly, as the caller asked for. */
static uint8_t *output(size_t *capacity)
{
    *capacity = (size_t)number();
    return malloc(*capacity);
}

static void answer(const char *request)
{
    fallwatch_result result = FALLWATCH_OK;
    fallwatch_message message;
    fallwatch_frame frame;
    size_t capacity = 0U;
    size_t octets = 0U;

    free(out); /* of the request before, which a power loss may have ended */
    free(in);
    out = in = NULL;
    if (strcmp(request, "aes") == 0) { /* KEY BLOCK: the block encrypted */
        uint8_t aes_key[16];
        uint8_t block[16];
        fixed_word(aes_key, 16U);
        fixed_word(block, 16U);
        (void)fallwatch_aes128(NULL, aes_key, block, block);
        printf("OK");
        say_octets(block, 16U);
    } else if ((strcmp(request, "ccm_seal") == 0) || (strcmp(request, "ccm_open") == 0)) {
        /* KEY NONCE CLEAR TEXT [MIC]: text and MIC */
        uint8_t ccm_key[16];
        uint8_t nonce[13];
        uint8_t mic[8];
        size_t clear_octets;
        const fallwatch_cipher cipher = {aes128, NULL, ccm_key};
        fixed_word(ccm_key, 16U);
        fixed_word(nonce, 13U);
        out = octets_word(&clear_octets);
        in = octets_word(&octets);
        if (request[4] == 's') {
            result = fallwatch_ccm_seal(&cipher, nonce, out, clear_octets, in, octets, mic);
        } else {
            fixed_word(mic, 8U);
            result = fallwatch_ccm_open(&cipher, nonce, out, clear_octets, in, octets, mic);
        }
        printf("%s", RESULTS[result]);
        if (result != FALLWATCH_BAD_VALUE) {
            say_octets(in, octets);
            say_octets(mic, 8U);
        }
    } else if (strcmp(request, "encode") == 0) { /* CAPACITY MESSAGE: type and body */
        uint8_t type = 0U;
        out = output(&capacity);
        message_words(&message);
        result = fallwatch_encode_message(&message, &type, out, capacity, &octets);
        printf("%s", RESULTS[result]);
        if (result == FALLWATCH_OK) {
            printf(" %u", type);
            say_octets(out, octets);
        }
    } else if (strcmp(request, "decode") == 0) { /* TYPE BODY: the message */
        const uint8_t type = (uint8_t)number();
        in = octets_word(&octets);
        result = fallwatch_decode_message(type, in, octets, &message);
        printf("%s", RESULTS[result]);
        if (result == FALLWATCH_OK) {
            say_message(&message);
        }
    } else if (strcmp(request, "header") == 0) { /* PACKET: type, wearable, counter */
        fallwatch_header header;
        in = octets_word(&octets);
        result = fallwatch_read_header(in, octets, &header);
        printf("%s", RESULTS[result]);
        if (result == FALLWATCH_OK) {
            printf(" %u %s %lu", header.type, header.wearable, (unsigned long)header.counter);
        }
    } else if (strcmp(request, "frame") == 0) { /* CAPACITY FRAME: the line's octets */
        out = output(&capacity);
        in = frame_words(&frame);
        result = fallwatch_encode_frame(&frame, out, capacity, &octets);
        printf("%s", RESULTS[result]);
        if (result == FALLWATCH_OK) {
            say_octets(out, octets);
        }
    } else if (strcmp(request, "line") == 0) { /* a fresh reader */
        fallwatch_decoder_start(&decoder);
        printf("OK");
    } else if (strcmp(request, "feed") == 0) { /* OCTETS: bad frames, bad octets so far, and the frames */
        in = octets_word(&octets);
        printf("OK");
        for (size_t i = 0U; i < octets; i++) {
            if (fallwatch_decoder_push(&decoder, in[i], &frame) == FALLWATCH_OK) {
                say_frame(&frame);
            }
        }
        printf(" ; %lu %lu", (unsigned long)decoder.bad_frames, (unsigned long)decoder.bad_octets);
    } else if (strcmp(request, "start") == 0) { /* WEARABLE KEY UPLINK COMMAND BOOT: a session on that flash */
        (void)snprintf(wearable, sizeof wearable, "%s", word());
        fixed_word(key, sizeof key);
        flash.uplink = (uint32_t)number();
        flash.command = (uint32_t)number();
        flash.boot = (uint16_t)number();
        saves_to_cut = saves_to_fail = blocks_to_fail = 0;
        printf("%s", RESULTS[fallwatch_session_start(&session, wearable, key, &flash, &HOOKS)]);
    } else if (strcmp(request, "restart") == 0) {
        printf("%s", RESULTS[fallwatch_session_start(&session, wearable, key, &flash, &HOOKS)]);
    } else if (strcmp(request, "cut") == 0) { /* SAVES before|after: the power goes at that save */
        saves_to_cut = (int)number();
        stored_first = word()[0] == 'a';
        printf("OK");
    } else if (strcmp(request, "full") == 0) { /* SAVES: so many fail */
        saves_to_fail = (int)number();
        printf("OK");
    } else if (strcmp(request, "broken") == 0) { /* BLOCKS: the AES hook fails at that block */
        blocks_to_fail = (int)number();
        printf("OK");
    } else if (strcmp(request, "flash") == 0) {
        printf("OK %lu %lu %u", (unsigned long)flash.uplink, (unsigned long)flash.command, flash.boot);
    } else if (strcmp(request, "seal") == 0) { /* CAPACITY MESSAGE: the packet */
        out = output(&capacity);
        message_words(&message);
        result = fallwatch_seal(&session, &message, out, capacity, &octets);
        printf("%s", RESULTS[result]);
        say_octets(out, (result == FALLWATCH_OK) ? octets : capacity);
    } else if (strcmp(request, "seals") == 0) { /* N MESSAGE: the counters of N packets, to the first refusal */
        long long left = number();
        message_words(&message);
        out = malloc(FALLWATCH_MAX_PACKET);
        printf("OK");
        while ((left > 0) && (result == FALLWATCH_OK)) {
            fallwatch_header header;
            result = fallwatch_seal(&session, &message, out, FALLWATCH_MAX_PACKET, &octets);
            if ((result == FALLWATCH_OK) && (fallwatch_read_header(out, octets, &header) == FALLWATCH_OK)) {
                printf(" %lu", (unsigned long)header.counter);
            }
            left--;
        }
        if (result != FALLWATCH_OK) {
            printf(" %s", RESULTS[result]);
        }
    } else if (strcmp(request, "open") == 0) { /* PACKET: the command */
        in = octets_word(&octets);
        result = fallwatch_open(&session, in, octets, &message);
        printf("%s", RESULTS[result]);
        if (result == FALLWATCH_OK) {
            say_message(&message);
        }
    } else {
        abort();
    }
}

int main(void)
{
    static char line[1 << 18]; /* the longest request: 65536 octets of text for CCM */

    while (fgets(line, sizeof line, stdin) != NULL) {
        char *const request = strtok(line, " \n");
        if (request == NULL) {
            abort();
        }
        if (setjmp(power_loss) == 0) {
            answer(request);
        } else { /* the power is back */
            (void)fallwatch_session_start(&session, wearable, key, &flash, &HOOKS);
            printf(strcmp(request, "seals") == 0 ? " CUT" : "CUT");
        }
        putchar('\n');
        fflush(stdout);
    }
    return 0;
}
