/* AES-128 in software, one block, encryption only (FIPS 197): all that CCM needs. The round keys are made on the
 * way, so it keeps nothing between blocks. Leave the file out where the chip has an AES peripheral.
 *
 * It looks up a table of 256 octets by secret values: its time is constant on a core without a data cache before
 * the memory that holds the table, and not otherwise.
 */
#ifndef FALLWATCH_AES_H
#define FALLWATCH_AES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FALLWATCH_AES_OCTETS 16U

/* A hook of type fallwatch_aes128_hook: encrypts 16 octets. `context` is not used; always true. */
bool fallwatch_aes128(void *context, const uint8_t *key, const uint8_t *in, uint8_t *out);

#ifdef __cplusplus
}
#endif

#endif
