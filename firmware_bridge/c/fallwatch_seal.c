#include "fallwatch_seal.h"

#include <string.h>

#define UP 0x01U
#define DOWN 0x02U
#define TYPE_COMMAND 0x20U
#define OVERHEAD (FALLWATCH_HEADER_OCTETS + FALLWATCH_MIC_OCTETS)
#define MAX_TEXT (FALLWATCH_MAX_PACKET - OVERHEAD)

/* --- CCM: RFC 3610 with M = 8, L = 2 --------------------------------------------------------------------- */

#define FLAGS_CLEAR 0x40U  /* something is authenticated in clear */
#define FLAGS_MAC 0x19U    /* 8 * (M - 2) / 2 + L - 1 */
#define FLAGS_STREAM 0x01U /* L - 1 */

static bool encrypt(const fallwatch_cipher *cipher, const uint8_t *in, uint8_t *out)
{
    return cipher->aes128(cipher->context, cipher->key, in, out);
}

static void start_block(uint8_t *block, uint8_t flags, const uint8_t *nonce, size_t number)
{
    block[0] = flags;
    (void)memcpy(&block[1], nonce, FALLWATCH_NONCE_OCTETS);
    block[14] = (uint8_t)((number >> 8) & 0xFFU);
    block[15] = (uint8_t)(number & 0xFFU);
}

/* Encrypt or decrypt `text` in place; `mic` becomes that of the plaintext. False if the cipher failed. */
static bool ccm(const fallwatch_cipher *cipher, const uint8_t *nonce, const uint8_t *clear, size_t clear_octets,
                uint8_t *text, size_t octets, bool sealing, uint8_t *mic)
{
    uint8_t mac[FALLWATCH_BLOCK_OCTETS];
    uint8_t stream[FALLWATCH_BLOCK_OCTETS];
    size_t number = 0U;
    bool works;

    start_block(mac, (uint8_t)(FLAGS_MAC | ((clear_octets > 0U) ? FLAGS_CLEAR : 0U)), nonce, octets);
    works = encrypt(cipher, mac, mac);
    if (clear_octets > 0U) {
        mac[1] ^= (uint8_t)clear_octets; /* its length has two octets, of which the first is 0 */
        for (size_t i = 0U; i < clear_octets; i++) {
            mac[2U + i] ^= clear[i];
        }
        works = works && encrypt(cipher, mac, mac);
    }
    for (size_t at = 0U; works && (at < octets); at += FALLWATCH_BLOCK_OCTETS) {
        size_t here = octets - at;

        if (here > FALLWATCH_BLOCK_OCTETS) {
            here = FALLWATCH_BLOCK_OCTETS;
        }
        number++;
        start_block(stream, FLAGS_STREAM, nonce, number);
        works = encrypt(cipher, stream, stream);
        for (size_t i = 0U; i < here; i++) {
            const uint8_t before = text[at + i];

            text[at + i] = (uint8_t)(before ^ stream[i]);
            mac[i] ^= sealing ? before : text[at + i];
        }
        works = works && encrypt(cipher, mac, mac);
    }
    start_block(stream, FLAGS_STREAM, nonce, 0U);
    works = works && encrypt(cipher, stream, stream);
    for (size_t i = 0U; i < FALLWATCH_MIC_OCTETS; i++) {
        mic[i] = (uint8_t)(mac[i] ^ stream[i]);
    }
    return works;
}

/* Whether two MICs are alike, in the same time wherever they differ. */
static bool same_mic(const uint8_t *one, const uint8_t *other)
{
    uint8_t differs = 0U;

    for (size_t i = 0U; i < FALLWATCH_MIC_OCTETS; i++) {
        differs |= (uint8_t)(one[i] ^ other[i]);
    }
    return differs == 0U;
}

fallwatch_result fallwatch_ccm_seal(const fallwatch_cipher *cipher, const uint8_t *nonce, const uint8_t *clear,
                                    size_t clear_octets, uint8_t *text, size_t octets, uint8_t *mic)
{
    if ((clear_octets > FALLWATCH_MAX_CLEAR) || (octets > FALLWATCH_MAX_SECRET)) {
        return FALLWATCH_BAD_VALUE;
    }
    if (!ccm(cipher, nonce, clear, clear_octets, text, octets, true, mic)) {
        (void)memset(text, 0, octets);
        return FALLWATCH_CIPHER_FAILED;
    }
    return FALLWATCH_OK;
}

fallwatch_result fallwatch_ccm_open(const fallwatch_cipher *cipher, const uint8_t *nonce, const uint8_t *clear,
                                    size_t clear_octets, uint8_t *text, size_t octets, const uint8_t *mic)
{
    uint8_t right[FALLWATCH_MIC_OCTETS];
    fallwatch_result result = FALLWATCH_OK;

    if ((clear_octets > FALLWATCH_MAX_CLEAR) || (octets > FALLWATCH_MAX_SECRET)) {
        return FALLWATCH_BAD_VALUE;
    }
    if (!ccm(cipher, nonce, clear, clear_octets, text, octets, false, right)) {
        result = FALLWATCH_CIPHER_FAILED;
    } else if (!same_mic(right, mic)) {
        result = FALLWATCH_FORGED;
    } else {
        return FALLWATCH_OK;
    }
    (void)memset(text, 0, octets);
    return result;
}

/* --- sessions -------------------------------------------------------------------------------------------- */

static fallwatch_cipher cipher_of(const fallwatch_session *session)
{
    const fallwatch_cipher cipher = {session->hooks.aes128, session->hooks.context, session->key};

    return cipher;
}

/* The nonce is the direction and what follows the type in the header: wearable and counter. */
static void make_nonce(uint8_t *nonce, uint8_t direction, const uint8_t *packet)
{
    nonce[0] = direction;
    (void)memcpy(&nonce[1], &packet[2], FALLWATCH_NONCE_OCTETS - 1U);
}

static bool save(const fallwatch_session *session, uint32_t uplink, uint32_t command)
{
    const fallwatch_counters counters = {uplink, command, session->boot};

    return session->hooks.save(session->hooks.context, &counters);
}

fallwatch_result fallwatch_session_start(fallwatch_session *session, const char *wearable, const uint8_t *key,
                                         const fallwatch_counters *stored, const fallwatch_hooks *hooks)
{
    uint8_t header[FALLWATCH_MIN_PACKET] = {0};
    fallwatch_header read;
    size_t length = 0U;

    header[0] = FALLWATCH_VERSION;
    while ((length < 8U) && (wearable[length] != '\0')) {
        header[2U + length] = (uint8_t)wearable[length];
        length++;
    }
    if (((length == 8U) && (wearable[length] != '\0')) ||
        (fallwatch_read_header(header, FALLWATCH_MIN_PACKET, &read) != FALLWATCH_OK)) {
        return FALLWATCH_BAD_VALUE; /* no id that a reader of packets would know */
    }
    (void)memcpy(session->wearable, &header[2], 8U);
    (void)memcpy(session->key, key, FALLWATCH_KEY_OCTETS);
    session->hooks = *hooks;
    session->uplink = stored->uplink; /* those up to the stored one may have been used before the power went */
    session->reserved = stored->uplink;
    session->command = stored->command;
    session->boot = (uint16_t)(((uint32_t)stored->boot + 1U) & 0xFFFFU);
    return FALLWATCH_OK;
}

/* Take the next counter, and have the durable store cover it first. */
static fallwatch_result next_counter(fallwatch_session *session)
{
    if (session->uplink == FALLWATCH_MAX_COUNTER) {
        return FALLWATCH_USED_UP;
    }
    if (session->uplink >= session->reserved) {
        const uint32_t left = (uint32_t)(FALLWATCH_MAX_COUNTER - session->uplink);
        const uint32_t ahead = session->uplink + ((left < FALLWATCH_COUNTER_STEP) ? left : FALLWATCH_COUNTER_STEP);

        if (!save(session, ahead, session->command)) {
            return FALLWATCH_NOT_STORED;
        }
        session->reserved = ahead;
    }
    session->uplink++;
    return FALLWATCH_OK;
}

static fallwatch_result seal(fallwatch_session *session, const fallwatch_message *message, uint8_t *packet,
                             size_t capacity, size_t *octets)
{
    const fallwatch_cipher cipher = cipher_of(session);
    uint8_t nonce[FALLWATCH_NONCE_OCTETS];
    size_t text_octets = 0U;
    fallwatch_result result;

    if (capacity < OVERHEAD) {
        return FALLWATCH_BAD_VALUE;
    }
    result = fallwatch_encode_message(message, &packet[1], &packet[FALLWATCH_HEADER_OCTETS], capacity - OVERHEAD,
                                      &text_octets);
    if (result != FALLWATCH_OK) {
        return result;
    }
    if (packet[1] == TYPE_COMMAND) {
        return FALLWATCH_BAD_VALUE; /* a wearable does not command */
    }
    result = next_counter(session);
    if (result != FALLWATCH_OK) {
        return result;
    }
    packet[0] = FALLWATCH_VERSION;
    (void)memcpy(&packet[2], session->wearable, 8U);
    for (size_t i = 0U; i < 4U; i++) {
        packet[10U + i] = (uint8_t)((session->uplink >> (8U * i)) & 0xFFU);
    }
    make_nonce(nonce, UP, packet);
    *octets = OVERHEAD + text_octets;
    return fallwatch_ccm_seal(&cipher, nonce, packet, FALLWATCH_HEADER_OCTETS, &packet[FALLWATCH_HEADER_OCTETS],
                              text_octets, &packet[FALLWATCH_HEADER_OCTETS + text_octets]);
}

fallwatch_result fallwatch_seal(fallwatch_session *session, const fallwatch_message *message, uint8_t *packet,
                                size_t capacity, size_t *octets)
{
    const fallwatch_result result = seal(session, message, packet, capacity, octets);

    if (result != FALLWATCH_OK) {
        (void)memset(packet, 0, capacity); /* so that no plaintext is sent by a caller who looks away */
        *octets = 0U;
    }
    return result;
}

fallwatch_result fallwatch_open(fallwatch_session *session, const uint8_t *packet, size_t octets,
                                fallwatch_message *command)
{
    const fallwatch_cipher cipher = cipher_of(session);
    uint8_t nonce[FALLWATCH_NONCE_OCTETS];
    uint8_t text[MAX_TEXT];
    fallwatch_header header;
    fallwatch_result result;

    if (fallwatch_read_header(packet, octets, &header) != FALLWATCH_OK) {
        return FALLWATCH_MALFORMED;
    }
    if (memcmp(&packet[2], session->wearable, 8U) != 0) {
        return FALLWATCH_NOT_OURS;
    }
    const size_t text_octets = octets - OVERHEAD;
    (void)memcpy(text, &packet[FALLWATCH_HEADER_OCTETS], text_octets);
    make_nonce(nonce, DOWN, packet);
    result = fallwatch_ccm_open(&cipher, nonce, packet, FALLWATCH_HEADER_OCTETS, text, text_octets,
                                &packet[octets - FALLWATCH_MIC_OCTETS]);
    if (result != FALLWATCH_OK) {
        return result;
    }
    if (header.counter <= session->command) {
        return FALLWATCH_STALE;
    }
    if (!save(session, session->reserved, header.counter)) {
        return FALLWATCH_NOT_STORED;
    }
    session->command = header.counter;
    if (header.type != TYPE_COMMAND) {
        return FALLWATCH_MALFORMED;
    }
    return fallwatch_decode_message(header.type, text, text_octets, command);
}
