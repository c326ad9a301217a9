/* Frames and messages of the fallwatch wire format, version 1: ../PROTOCOL.md has the tables, in the same order.
 *
 * Nothing here allocates, keeps state of its own or waits. Pointers must be valid; lengths are checked. What a
 * function writes counts only if it returns FALLWATCH_OK. Numbers carry their units in their names.
 */
#ifndef FALLWATCH_WIRE_H
#define FALLWATCH_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FALLWATCH_VERSION 1U
#define FALLWATCH_TICK_HZ 32768UL
#define FALLWATCH_MAX_SAMPLES 30U /* in one packet */
#define FALLWATCH_MAX_BODY 195U   /* octets of the longest message: 15 + 6 * 30 */
#define FALLWATCH_HEADER_OCTETS 14U
#define FALLWATCH_MIC_OCTETS 8U
#define FALLWATCH_MIN_PACKET 22U
#define FALLWATCH_MAX_PACKET 246U
#define FALLWATCH_MAX_FRAME 250U /* octets of a frame before COBS, which then adds one octet, never two */
#define FALLWATCH_MAX_RUN 251U   /* octets of a frame on the line, without its closing 00 */
#define FALLWATCH_MAX_LINE 252U  /* with it */

/* Bits of `flags`. */
#define FALLWATCH_WORN 1U
#define FALLWATCH_CHARGING 2U
#define FALLWATCH_BUTTON_HELD 4U
#define FALLWATCH_CLIPPED 8U

typedef enum {
    FALLWATCH_OK = 0,
    FALLWATCH_MORE,         /* no run ends here: push the next octet */
    FALLWATCH_BAD_VALUE,    /* the caller's mistake: a field outside its table, or too small a buffer */
    FALLWATCH_MALFORMED,    /* octets that are no frame, packet or message of this version */
    FALLWATCH_NOT_OURS,     /* a packet for another wearable */
    FALLWATCH_FORGED,       /* wrong key or changed octets */
    FALLWATCH_STALE,        /* a command taken before, or older than one taken */
    FALLWATCH_NOT_STORED,   /* the counters could not be stored, so nothing was sealed or obeyed */
    FALLWATCH_USED_UP,      /* the last counter is used: the wearable must be paired again */
    FALLWATCH_CIPHER_FAILED /* the AES hook said so */
} fallwatch_result;

/* --- messages: what a sealed packet holds ---------------------------------------------------------------- */

/* The packet's type times 256, plus the action of a command. */
typedef enum {
    FALLWATCH_MESSAGE_HELLO = 0x0100,
    FALLWATCH_MESSAGE_SAMPLES = 0x0200,
    FALLWATCH_MESSAGE_STATUS = 0x0300,
    FALLWATCH_MESSAGE_BUTTON = 0x0400,
    FALLWATCH_MESSAGE_PROOF = 0x0500,
    FALLWATCH_MESSAGE_IDENTIFY = 0x2001,
    FALLWATCH_MESSAGE_ACKNOWLEDGE_BUTTON = 0x2002,
    FALLWATCH_MESSAGE_PROVE = 0x2003,
    FALLWATCH_MESSAGE_CONFIGURE = 0x2004,
    FALLWATCH_MESSAGE_REASSURE = 0x2005
} fallwatch_message_kind;

typedef struct {
    uint16_t boot; /* counts restarts, wraps */
    uint8_t firmware[3];
    uint8_t hardware;
    uint8_t range_g;   /* 2, 4, 8 or 16 */
    uint16_t rate_chz; /* hundredths of a hertz, not 0 */
    uint32_t tick_hz;
    uint32_t last_command; /* highest counter of a command taken */
} fallwatch_hello;

typedef struct {
    uint16_t boot;
    uint32_t tick;  /* the wearable's clock at the first sample, wraps */
    uint32_t first; /* index of the first sample since boot */
    uint16_t rate_chz;
    uint8_t range_g;
    uint8_t flags;
    uint8_t n;                                /* 1 to 30 */
    int16_t xyz[FALLWATCH_MAX_SAMPLES][3]; /* range_g / 32768 g a count; gravity is included */
} fallwatch_samples;

typedef struct {
    uint8_t battery_pct; /* 0 to 100 */
    uint16_t battery_mv;
    int8_t temperature_c;
    uint8_t flags;
    uint32_t uptime_s;
} fallwatch_status;

typedef struct {
    uint16_t boot;
    uint16_t press; /* counts presses since boot */
    uint32_t tick;  /* the wearable's clock at the press */
    uint16_t held_ms;
} fallwatch_button;

typedef struct {
    uint16_t boot;
    uint16_t press;
} fallwatch_acknowledge_button;

typedef struct {
    uint16_t rate_chz;
    uint8_t range_g;
} fallwatch_configure;

typedef struct {
    fallwatch_message_kind kind; /* says which member of `of` holds; REASSURE has none */
    union {
        fallwatch_hello hello;
        fallwatch_samples samples;
        fallwatch_status status;
        fallwatch_button button;
        uint8_t challenge[8]; /* PROVE and PROOF */
        uint8_t identify_s;
        fallwatch_acknowledge_button acknowledge_button;
        fallwatch_configure configure;
    } of;
} fallwatch_message;

/* Give the message's packet type and its body, at most FALLWATCH_MAX_BODY octets.
 * OK, or BAD_VALUE. */
fallwatch_result fallwatch_encode_message(const fallwatch_message *message, uint8_t *type, uint8_t *body,
                                          size_t capacity, size_t *octets);

/* Give the message of an opened packet.
 * OK, or MALFORMED: unknown type or action, wrong length, or a value outside its range. */
fallwatch_result fallwatch_decode_message(uint8_t type, const uint8_t *body, size_t octets,
                                          fallwatch_message *message);

/* --- packets: the clear header of a sealed message ------------------------------------------------------- */

typedef struct {
    uint8_t type;
    char wearable[9]; /* the id, ended by a 0 */
    uint32_t counter;
} fallwatch_header;

/* Give what anybody may read of a sealed packet: a dongle finds there whom a downlink is for. Nothing in it is
 * proved until the packet is opened.
 * OK, or MALFORMED: another version, a length no packet has, or no wearable's id. */
fallwatch_result fallwatch_read_header(const uint8_t *packet, size_t octets, fallwatch_header *header);

/* --- frames: between dongle and Pi ----------------------------------------------------------------------- */

typedef enum {
    FALLWATCH_FRAME_DONGLE_HELLO = 0x01,
    FALLWATCH_FRAME_DONGLE_STATUS = 0x02,
    FALLWATCH_FRAME_UPLINK = 0x10,
    FALLWATCH_FRAME_DOWNLINK = 0x20,
    FALLWATCH_FRAME_DONGLE_ASK = 0x21
} fallwatch_frame_kind;

typedef struct {
    uint8_t version;
    uint8_t firmware[3];
    uint8_t serial[8];
} fallwatch_dongle_hello;

typedef struct {
    uint32_t uptime_ms;
    uint32_t frames_received; /* packets heard on the radio */
    uint32_t frames_dropped;  /* of those, not passed on because the Pi did not read */
} fallwatch_dongle_status;

typedef struct {
    int8_t rssi_dbm; /* of an uplink */
    const uint8_t *packet;
    size_t octets; /* FALLWATCH_MIN_PACKET to FALLWATCH_MAX_PACKET */
} fallwatch_carried;

typedef struct {
    fallwatch_frame_kind kind; /* says which member of `of` holds; DONGLE_ASK has none */
    union {
        fallwatch_dongle_hello dongle_hello;
        fallwatch_dongle_status dongle_status;
        fallwatch_carried carried; /* UPLINK and DOWNLINK */
    } of;
} fallwatch_frame;

/* Give the frame as it goes over the line, with its closing 00, at most FALLWATCH_MAX_LINE octets.
 * OK, or BAD_VALUE. `line` must not overlap a carried packet. */
fallwatch_result fallwatch_encode_frame(const fallwatch_frame *frame, uint8_t *line, size_t capacity,
                                        size_t *octets);

/* Turns line octets into frames. `bad_frames` counts runs between two 00s that were no frame, `bad_octets`
 * their octets; both wrap. */
typedef struct {
    uint8_t run[FALLWATCH_MAX_RUN];
    size_t length;
    bool overrun; /* inside a run too long for a frame */
    uint32_t bad_frames;
    uint32_t bad_octets;
} fallwatch_decoder;

void fallwatch_decoder_start(fallwatch_decoder *decoder);

/* Take the next octet of the line.
 * OK: it ended a frame; a carried packet lies in the decoder until the next push. MORE: nothing ended.
 * MALFORMED: it ended a run that is no frame, which is dropped and counted. */
fallwatch_result fallwatch_decoder_push(fallwatch_decoder *decoder, uint8_t octet, fallwatch_frame *frame);

#ifdef __cplusplus
}
#endif

#endif
