/* The wearable's side of the seal: AES-128-CCM with an 8-octet MIC, and the counters that make it safe
 * (../PROTOCOL.md, parts 2 and 4). It does what `WearableSession` of ../session.py does.
 *
 * A session is not re-entrant: call it from one task, never also from an interrupt. Two calls at once could use
 * one counter twice, and that gives both messages away.
 */
#ifndef FALLWATCH_SEAL_H
#define FALLWATCH_SEAL_H

#include "fallwatch_wire.h"

#ifdef __cplusplus
extern "C" {
#endif

#define FALLWATCH_KEY_OCTETS 16U
#define FALLWATCH_BLOCK_OCTETS 16U
#define FALLWATCH_NONCE_OCTETS 13U
#define FALLWATCH_MAX_COUNTER 0xFFFFFFFFUL
#define FALLWATCH_COUNTER_STEP 64U /* counters reserved in durable store at a time */

/* Encrypt one block of 16 octets with AES-128; `in` and `out` may be the same. False if the hardware failed.
 * `fallwatch_aes128` is one in software. Where the key lies in hardware, leave `key` unread. */
typedef bool (*fallwatch_aes128_hook)(void *context, const uint8_t *key, const uint8_t *in, uint8_t *out);

/* What a wearable keeps in durable store beside its key. */
typedef struct {
    uint32_t uplink;  /* no counter above it was ever used for sealing */
    uint32_t command; /* highest counter of a command taken */
    uint16_t boot;    /* counts starts, wraps */
} fallwatch_counters;

/* Put the counters in durable store and return true once they are there for good. A power loss meanwhile must
 * leave either the old or the new ones, whole. */
typedef bool (*fallwatch_save_hook)(void *context, const fallwatch_counters *counters);

typedef struct {
    fallwatch_aes128_hook aes128;
    fallwatch_save_hook save;
    void *context; /* passed to both */
} fallwatch_hooks;

/* One wearable's session. Read `boot` and `command` (for HELLO); change nothing. */
typedef struct {
    fallwatch_hooks hooks;
    uint32_t uplink;   /* last counter used */
    uint32_t reserved; /* the durable store covers counters up to here */
    uint32_t command;
    uint16_t boot;
    uint8_t wearable[8];
    uint8_t key[FALLWATCH_KEY_OCTETS];
} fallwatch_session;

/* Start with what the durable store holds: zeros with a new key, and only then. If the store cannot be read, do
 * not start: zeros would use old counters again, so the wearable must be paired again.
 * `wearable`: 1 to 8 of A-Z a-z 0-9 -, ended by a 0. OK, or BAD_VALUE. */
fallwatch_result fallwatch_session_start(fallwatch_session *session, const char *wearable, const uint8_t *key,
                                         const fallwatch_counters *stored, const fallwatch_hooks *hooks);

/* Give a sealed packet for the Pi: 22 octets more than its message. Stores first if counters must be reserved.
 * OK; BAD_VALUE: no message from a wearable, or too small a buffer; USED_UP, NOT_STORED, CIPHER_FAILED. If not OK,
 * the buffer's first `capacity` octets are 0. */
fallwatch_result fallwatch_seal(fallwatch_session *session, const fallwatch_message *message, uint8_t *packet,
                                size_t capacity, size_t *octets);

/* Give the command of a packet that is authentic, new and well formed. Its counter is stored before this returns.
 * OK; MALFORMED, NOT_OURS, FORGED, STALE; NOT_STORED, CIPHER_FAILED: not taken, may be sent again. */
fallwatch_result fallwatch_open(fallwatch_session *session, const uint8_t *packet, size_t octets,
                                fallwatch_message *command);

/* --- CCM alone, for tests and self-tests ----------------------------------------------------------------- */

#define FALLWATCH_MAX_CLEAR 14U      /* octets authenticated in clear: they share one block with their length */
#define FALLWATCH_MAX_SECRET 0xFFFFU /* octets encrypted: their length has two octets beside a nonce of 13 */

typedef struct {
    fallwatch_aes128_hook aes128;
    void *context;
    const uint8_t *key;
} fallwatch_cipher;

/* Encrypt `text` in place and give its MIC (8 octets).
 * OK; CIPHER_FAILED: the text is filled with 0; BAD_VALUE: too long, untouched. */
fallwatch_result fallwatch_ccm_seal(const fallwatch_cipher *cipher, const uint8_t *nonce, const uint8_t *clear,
                                    size_t clear_octets, uint8_t *text, size_t octets, uint8_t *mic);

/* Decrypt `text` in place if the MIC is right, compared in constant time.
 * OK; FORGED, CIPHER_FAILED: the text is filled with 0; BAD_VALUE: too long, untouched. */
fallwatch_result fallwatch_ccm_open(const fallwatch_cipher *cipher, const uint8_t *nonce, const uint8_t *clear,
                                    size_t clear_octets, uint8_t *text, size_t octets, const uint8_t *mic);

#ifdef __cplusplus
}
#endif

#endif
