//: Window
/* A window that slides over an image of [channels][height][width]; a linear layer has an image of 1 x 1. */
typedef struct {
    int32_t channels, height, width;
    int32_t out_channels, out_height, out_width;
    int32_t kernel_height, kernel_width, stride_y, stride_x, dilation_y, dilation_x;
    int32_t top, left, groups;
} Window;

//: ones
static int32_t ones(uint32_t v)
{
    v -= (v >> 1) & 0x55555555u;
    v = (v & 0x33333333u) + ((v >> 2) & 0x33333333u);
    v = (v + (v >> 4)) & 0x0f0f0f0fu;
    return (int32_t)((v * 0x01010101u) >> 24);
}

//: pack
/* Bits of an image, [pixel][channels / 32]: 1 where x < threshold. */
static void pack(const float *x, int32_t channels, int32_t pixels, const float *threshold, int32_t step,
                 uint32_t *bits)
{
    const int32_t words = (channels + 31) / 32;
    for (int32_t i = 0; i < words * pixels; i++)
        bits[i] = 0;
    for (int32_t c = 0; c < channels; c++) {
        const float limit = threshold ? threshold[c * step] : 0.0f;
        for (int32_t p = 0; p < pixels; p++)
            bits[p * words + c / 32] |= (uint32_t)(*x++ < limit) << (c & 31);
    }
}

//: put
static void put(uint32_t *stream, int32_t at, uint32_t value, int32_t n)
{
    const int32_t shift = at & 31;
    stream[at >> 5] |= value << shift;
    if (shift + n > 32)
        stream[(at >> 5) + 1] |= value >> (32 - shift);
}

//: Binary Window
/* A layer with binary weights and inputs. Bit 0 is the upper value (+1), bit 1 the lower (-1, or 0 with zero_one).
   `outside` is what a tap beyond the image counts as: +1, -1, or 0 for nothing. weight: [filter][words], the taps of
   a filter in the order (y, x, channel). */
typedef struct {
    Window window;
    int32_t outside, zero_one, planes;
    const uint32_t *weight;
    const float *scale, *shift, *window_scale;
    float border; /* what a tap outside is off by, in units of the input's radius */
    const int32_t *limit;
    const uint32_t *flip;
} Binary;

//: gather Binary put ones
/* The bits under the window as one stream, and a mask of those that count. Returns how many do. */
static int32_t gather(const Binary *layer, const uint32_t *bits, int32_t group, int32_t out_y, int32_t out_x,
                      uint32_t *seen, uint32_t *mask)
{
    const Window *w = &layer->window;
    const int32_t span = w->channels / w->groups, pixel = (w->channels + 31) / 32;
    const int32_t words = (span * w->kernel_height * w->kernel_width + 31) / 32;
    int32_t at = 0, count = 0;
    for (int32_t i = 0; i < words; i++)
        seen[i] = mask[i] = 0;
    for (int32_t ky = 0; ky < w->kernel_height; ky++) {
        const int32_t y = out_y * w->stride_y - w->top + ky * w->dilation_y;
        for (int32_t kx = 0; kx < w->kernel_width; kx++) {
            const int32_t x = out_x * w->stride_x - w->left + kx * w->dilation_x;
            const int32_t inside = y >= 0 && y < w->height && x >= 0 && x < w->width;
            int32_t from = group * span, n;
            for (int32_t rest = span; rest > 0; rest -= n, from += n, at += n) {
                uint32_t all, value;
                n = rest < 32 ? rest : 32;
                if (!inside && layer->outside == 0)
                    continue;
                all = n < 32 ? ((uint32_t)1 << n) - 1 : 0xffffffffu;
                value = layer->outside < 0 ? all : 0;
                if (inside) {
                    const uint32_t *word = bits + (y * w->width + x) * pixel + (from >> 5);
                    const int32_t shift = from & 31;
                    value = word[0] >> shift;
                    if (shift + n > 32)
                        value |= word[1] << (32 - shift);
                    value &= all;
                }
                put(seen, at, value, n);
                put(mask, at, all, n);
                count += n;
            }
        }
    }
    if (layer->zero_one) { /* what is 0 does not count, what is 1 is +1 */
        count = 0;
        for (int32_t i = 0; i < words; i++) {
            mask[i] &= ~seen[i];
            seen[i] = 0;
            count += ones(mask[i]);
        }
    }
    return count;
}

//: differ ones
static int32_t differ(const uint32_t *seen, const uint32_t *weight, const uint32_t *mask, int32_t words)
{
    int32_t count = 0;
    for (int32_t i = 0; i < words; i++)
        count += ones((seen[i] ^ weight[i]) & mask[i]);
    return count;
}

//: binary Binary gather differ
/* scale * dot + window_scale * (sum of the inputs) + ((E * (sum of the weights inside) + F * their number) + shift)
   with E = border * scale and F = border * window_scale */
static void binary(const Binary *layer, const uint32_t *bits, uint32_t *seen, uint32_t *mask, float *y)
{
    const Window *w = &layer->window;
    const int32_t filters = w->out_channels / w->groups, pixels = w->out_height * w->out_width;
    const int32_t words = (w->channels / w->groups * w->kernel_height * w->kernel_width + 31) / 32;
    const int32_t image = (w->channels + 31) / 32 * w->height * w->width;
    for (int32_t group = 0; group < w->groups; group++)
        for (int32_t p = 0; p < pixels; p++)
            for (int32_t plane = layer->planes - 1, first = 1; plane >= 0; plane--, first = 0) {
                const int32_t k = layer->planes - 1 - plane, out_y = p / w->out_width, out_x = p % w->out_width;
                const int32_t n = gather(layer, bits + k * image, group, out_y, out_x, seen, mask);
                for (int32_t o = group * filters; o < (group + 1) * filters; o++) {
                    const uint32_t *weight = layer->weight + o * words;
                    const int32_t dot = n - 2 * differ(seen, weight, mask, words);
                    float v = layer->scale[k * w->out_channels + o] * (float)dot;
                    if (!first)
                        v = y[o * pixels + p] + v;
                    if (plane == 0) {
                        float constant = layer->shift[o];
                        if (layer->window_scale) {
                            int32_t lower = 0;
                            for (int32_t i = 0; i < words; i++)
                                lower += ones(seen[i] & mask[i]);
                            v = v + layer->window_scale[o] * (float)(n - 2 * lower);
                        }
                        if (layer->border != 0.0f) {
                            int32_t lower = 0;
                            float per_weight = layer->scale[o] * layer->border, per_count = 0.0f;
                            for (int32_t i = 0; i < words; i++)
                                lower += ones(weight[i] & mask[i]);
                            per_weight = per_weight * (float)(n - 2 * lower);
                            if (layer->window_scale)
                                per_count = layer->window_scale[o] * layer->border;
                            per_count = per_count * (float)n;
                            constant = (per_weight + per_count) + constant;
                        }
                        v = v + constant;
                    }
                    y[o * pixels + p] = v;
                }
            }
}

//: binary_bits Binary gather differ
/* The same where nothing but signs is read of the result: whether dot < limit, or not where flip is set. */
static void binary_bits(const Binary *layer, const uint32_t *bits, uint32_t *seen, uint32_t *mask, uint32_t *y)
{
    const Window *w = &layer->window;
    const int32_t filters = w->out_channels / w->groups, pixels = w->out_height * w->out_width;
    const int32_t words = (w->channels / w->groups * w->kernel_height * w->kernel_width + 31) / 32;
    const int32_t row = (w->out_channels + 31) / 32;
    for (int32_t i = 0; i < row * pixels; i++)
        y[i] = layer->flip[i % row];
    for (int32_t group = 0; group < w->groups; group++)
        for (int32_t p = 0; p < pixels; p++) {
            const int32_t n = gather(layer, bits, group, p / w->out_width, p % w->out_width, seen, mask);
            for (int32_t o = group * filters; o < (group + 1) * filters; o++) {
                const int32_t dot = n - 2 * differ(seen, layer->weight + o * words, mask, words);
                y[p * row + o / 32] ^= (uint32_t)(dot < layer->limit[o]) << (o & 31);
            }
        }
}

//: max_pool_bits Window
/* The largest value of a window lies below a threshold where all of them do. */
static void max_pool_bits(const Window *w, const uint32_t *bits, uint32_t *y)
{
    const int32_t words = (w->channels + 31) / 32;
    for (int32_t p = 0; p < w->out_height * w->out_width; p++)
        for (int32_t i = 0; i < words; i++) {
            uint32_t all = 0xffffffffu;
            for (int32_t ky = 0; ky < w->kernel_height; ky++)
                for (int32_t kx = 0; kx < w->kernel_width; kx++) {
                    const int32_t in_y = p / w->out_width * w->stride_y - w->top + ky * w->dilation_y;
                    const int32_t in_x = p % w->out_width * w->stride_x - w->left + kx * w->dilation_x;
                    if (in_y >= 0 && in_y < w->height && in_x >= 0 && in_x < w->width)
                        all &= bits[(in_y * w->width + in_x) * words + i];
                }
            *y++ = all;
        }
}

//: conv Window
/* Float weights, [filter][channel][y][x]; products are added in that order. */
static void conv(const Window *w, const float *x, const float *weight, const float *bias, float *y)
{
    const int32_t span = w->channels / w->groups, filters = w->out_channels / w->groups;
    const int32_t pixels = w->out_height * w->out_width;
    for (int32_t o = 0; o < w->out_channels; o++)
        for (int32_t p = 0; p < pixels; p++) {
            const int32_t top = p / w->out_width * w->stride_y - w->top;
            const int32_t left = p % w->out_width * w->stride_x - w->left;
            const float *factor = weight + o * span * w->kernel_height * w->kernel_width;
            float sum = 0.0f;
            for (int32_t c = o / filters * span; c < (o / filters + 1) * span; c++)
                for (int32_t ky = 0; ky < w->kernel_height; ky++)
                    for (int32_t kx = 0; kx < w->kernel_width; kx++, factor++) {
                        const int32_t in_y = top + ky * w->dilation_y, in_x = left + kx * w->dilation_x;
                        if (in_y >= 0 && in_y < w->height && in_x >= 0 && in_x < w->width) {
                            const float product = x[(c * w->height + in_y) * w->width + in_x] * *factor;
                            sum = sum + product;
                        }
                    }
            *y++ = bias ? sum + bias[o] : sum;
        }
}

//: conv_signs Window
/* Binary weights on float inputs: bit 1 of [filter][words] subtracts, in the order of `conv`; outside stands `pad`. */
static void conv_signs(const Window *w, float pad, const float *x, const uint32_t *weight, const float *scale,
                       const float *window_scale, const float *shift, float *y)
{
    const int32_t span = w->channels / w->groups, filters = w->out_channels / w->groups;
    const int32_t pixels = w->out_height * w->out_width;
    const int32_t words = (span * w->kernel_height * w->kernel_width + 31) / 32;
    for (int32_t o = 0; o < w->out_channels; o++)
        for (int32_t p = 0; p < pixels; p++) {
            const int32_t top = p / w->out_width * w->stride_y - w->top;
            const int32_t left = p % w->out_width * w->stride_x - w->left;
            float sum = 0.0f, all = 0.0f, v;
            int32_t k = 0;
            for (int32_t c = o / filters * span; c < (o / filters + 1) * span; c++)
                for (int32_t ky = 0; ky < w->kernel_height; ky++)
                    for (int32_t kx = 0; kx < w->kernel_width; kx++, k++) {
                        const int32_t in_y = top + ky * w->dilation_y, in_x = left + kx * w->dilation_x;
                        const int32_t inside = in_y >= 0 && in_y < w->height && in_x >= 0 && in_x < w->width;
                        const float value = inside ? x[(c * w->height + in_y) * w->width + in_x] : pad;
                        sum = weight[o * words + k / 32] >> (k & 31) & 1 ? sum - value : sum + value;
                        all = all + value;
                    }
            v = scale[o] * sum;
            if (window_scale) {
                const float term = window_scale[o] * all;
                v = v + term;
            }
            *y++ = v + shift[o];
        }
}

//: max_pool Window
static void max_pool(const Window *w, const float *x, float *y)
{
    for (int32_t c = 0; c < w->channels; c++, x += w->height * w->width)
        for (int32_t p = 0; p < w->out_height * w->out_width; p++) {
            const float *largest = 0;
            for (int32_t ky = 0; ky < w->kernel_height; ky++)
                for (int32_t kx = 0; kx < w->kernel_width; kx++) {
                    const int32_t in_y = p / w->out_width * w->stride_y - w->top + ky * w->dilation_y;
                    const int32_t in_x = p % w->out_width * w->stride_x - w->left + kx * w->dilation_x;
                    if (in_y >= 0 && in_y < w->height && in_x >= 0 && in_x < w->width) {
                        const float *value = x + in_y * w->width + in_x;
                        if (!largest || *value > *largest)
                            largest = value;
                    }
                }
            *y++ = largest ? *largest : 0.0f;
        }
}

//: avg_pool Window
/* divisor: a number, 0 for the taps inside the image, -1 for those inside the padded one (bottom and right as wide
   as top and left). */
static void avg_pool(const Window *w, int32_t divisor, const float *x, float *y)
{
    for (int32_t c = 0; c < w->channels; c++, x += w->height * w->width)
        for (int32_t p = 0; p < w->out_height * w->out_width; p++) {
            const int32_t top = p / w->out_width * w->stride_y - w->top;
            const int32_t left = p % w->out_width * w->stride_x - w->left;
            int32_t inside = 0, padded = 0;
            float sum = 0.0f;
            for (int32_t in_y = top; in_y < top + w->kernel_height; in_y++)
                for (int32_t in_x = left; in_x < left + w->kernel_width; in_x++) {
                    padded += in_y < w->height + w->top && in_x < w->width + w->left;
                    if (in_y >= 0 && in_y < w->height && in_x >= 0 && in_x < w->width) {
                        sum = sum + x[in_y * w->width + in_x];
                        inside++;
                    }
                }
            *y++ = sum / (float)(divisor > 0 ? divisor : divisor < 0 ? padded : inside);
        }
}

//: mean
/* [outer][count][inner] -> [outer][inner] */
static void mean(const float *x, int32_t outer, int32_t count, int32_t inner, float *y)
{
    for (int32_t a = 0; a < outer; a++, x += count * inner)
        for (int32_t b = 0; b < inner; b++) {
            float sum = 0.0f;
            for (int32_t k = 0; k < count; k++)
                sum = sum + x[k * inner + b];
            *y++ = sum / (float)count;
        }
}

//: affine
/* x * factor + offset of each channel, either of them missing (0); step 0 has one number for all channels. */
static void affine(const float *x, int32_t channels, int32_t pixels, const float *factor, const float *offset,
                   int32_t step, float *y)
{
    for (int32_t c = 0; c < channels; c++)
        for (int32_t p = 0; p < pixels; p++) {
            float v = *x++;
            if (factor)
                v = v * factor[c * step];
            if (offset)
                v = v + offset[c * step];
            *y++ = v;
        }
}

//: clamp
static void clamp(const float *x, int32_t n, float low, float high, float *y)
{
    for (int32_t i = 0; i < n; i++)
        y[i] = x[i] < low ? low : x[i] > high ? high : x[i];
}

//: relu
static void relu(const float *x, int32_t n, float *y)
{
    for (int32_t i = 0; i < n; i++)
        y[i] = x[i] < 0.0f ? 0.0f : x[i];
}

//: prelu
/* (x > 0 ? x : slope * x), on x - before and with `after` added where they are given. */
static void prelu(const float *x, int32_t channels, int32_t pixels, const float *before, const float *slope,
                  int32_t step, const float *after, float *y)
{
    for (int32_t c = 0; c < channels; c++)
        for (int32_t p = 0; p < pixels; p++) {
            const float z = before ? *x++ - before[c] : *x++;
            const float bent = z > 0.0f ? z : slope[c * step] * z;
            *y++ = after ? bent + after[c] : bent;
        }
}

//: maxout
/* pos * max(x, 0) + neg * min(x, 0) */
static void maxout(const float *x, int32_t channels, int32_t pixels, const float *pos, const float *neg, float *y)
{
    for (int32_t c = 0; c < channels; c++)
        for (int32_t p = 0; p < pixels; p++) {
            const float v = *x++, upper = (v > 0.0f ? v : 0.0f) * pos[c], lower = (v < 0.0f ? v : 0.0f) * neg[c];
            *y++ = upper + lower;
        }
}

//: add
static void add(const float *a, const float *b, int32_t n, float *y)
{
    for (int32_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

//: add_repeated
/* b has `period` numbers, repeated as often as a has them. */
static void add_repeated(const float *a, const float *b, int32_t period, int32_t n, float *y)
{
    for (int32_t i = 0; i < n; i++)
        y[i] = a[i] + b[i % period];
}

//: subtract
static void subtract(const float *a, const float *b, int32_t n, float *y)
{
    for (int32_t i = 0; i < n; i++)
        y[i] = a[i] - b[i];
}

//: multiply
static void multiply(const float *a, const float *b, int32_t n, float *y)
{
    for (int32_t i = 0; i < n; i++)
        y[i] = a[i] * b[i];
}

//: fill
static void fill(float *y, int32_t n, float value)
{
    for (int32_t i = 0; i < n; i++)
        y[i] = value;
}

//: place
/* Four sizes, how far a step along each goes in x, and how far in y. */
static void place(const float *x, const int32_t *along, float *y)
{
    for (int32_t a = 0; a < along[0]; a++)
        for (int32_t b = 0; b < along[1]; b++)
            for (int32_t c = 0; c < along[2]; c++)
                for (int32_t d = 0; d < along[3]; d++)
                    y[a * along[8] + b * along[9] + c * along[10] + d * along[11]] =
                        x[a * along[4] + b * along[5] + c * along[6] + d * along[7]];
}

//: copy
static void copy(const float *x, int32_t n, float *y)
{
    for (int32_t i = 0; i < n; i++)
        y[i] = x[i];
}
