//: from_int32
static void from_int32(const int32_t *x, int32_t n, float *y)
{
    for (int32_t i = 0; i < n; i++)
        y[i] = (float)x[i];
}

//: from_uint8
static void from_uint8(const uint8_t *x, int32_t n, float *y)
{
    for (int32_t i = 0; i < n; i++)
        y[i] = (float)x[i];
}

//: from_int8
static void from_int8(const int8_t *x, int32_t n, float *y)
{
    for (int32_t i = 0; i < n; i++)
        y[i] = (float)x[i];
}

//: from_int16
static void from_int16(const int16_t *x, int32_t n, float *y)
{
    for (int32_t i = 0; i < n; i++)
        y[i] = (float)x[i];
}

//: Number
/* A float and its bits. */
typedef union {
    float value;
    uint32_t bits;
} Number;

//: lower_whole
static float lower_whole(float x)
{
    float whole = x;
    if (x > -8388608.0f && x < 8388608.0f) {
        whole = (float)(int32_t)x;
        if (whole > x)
            whole = whole - 1.0f;
    }
    return whole;
}

//: nearest_whole lower_whole
/* Halves go to the even neighbour. */
static float nearest_whole(float x)
{
    const float whole = lower_whole(x), rest = x - whole;
    if (rest > 0.5f || (rest == 0.5f && lower_whole(whole * 0.5f) * 2.0f != whole))
        return whole + 1.0f;
    return whole;
}

//: square_root Number
/* Exactly rounded, digit by digit. */
static float square_root(float x)
{
    Number n;
    uint32_t mantissa, root = 0, rest = 0;
    int32_t exponent, scaled = 0;
    n.value = x;
    if (!(x > 0.0f) || n.bits == 0x7f800000u)
        return x < 0.0f ? (x - x) / (x - x) : x;
    if (n.bits < 0x00800000u) {
        n.value = x * 16777216.0f;
        scaled = 24;
    }
    exponent = (int32_t)(n.bits >> 23) - 127;
    mantissa = (n.bits & 0x007fffffu) | 0x00800000u;
    if (exponent & 1)
        mantissa <<= 1;
    for (int32_t i = 0; i < 25; i++) {
        rest = (rest << 2) | (mantissa >> 23 & 3);
        mantissa <<= 2;
        root <<= 1;
        if (rest > 2 * root) {
            rest -= 2 * root + 1;
            root |= 1;
        }
    }
    root += root & 1; /* a root is never halfway between two floats */
    n.bits = (uint32_t)(((exponent - (exponent & 1) - scaled) / 2 + 126) << 23) + (root >> 1);
    return n.value;
}

//: expo Number
static float expo(float x)
{
    const float z = x < -104.0f ? -104.0f : x > 89.0f ? 89.0f : x;
    const int32_t n = (int32_t)(z * 0x1.715476p+0f + (z < 0.0f ? -0.5f : 0.5f)), half = n >> 1;
    const float high = (float)n * 0x1.63p-1f, low = (float)n * -0x1.bd0106p-13f;
    const float r = (z - high) - low;
    float y = 0x1.a01a02p-13f;
    Number first, second;
    y = y * r;
    y = y + 0x1.6c16c2p-10f;
    y = y * r;
    y = y + 0x1.111112p-7f;
    y = y * r;
    y = y + 0x1.555556p-5f;
    y = y * r;
    y = y + 0x1.555556p-3f;
    y = y * r;
    y = y + 0x1p-1f;
    y = y * r;
    y = y + 0x1p+0f;
    y = y * r;
    y = y + 0x1p+0f;
    first.bits = (uint32_t)(half + 127) << 23;
    second.bits = (uint32_t)(n - half + 127) << 23;
    y = y * first.value;
    return y * second.value;
}

//: logarithm Number
static float logarithm(float x)
{
    Number n;
    int32_t shifted;
    float count, s, z, y;
    n.value = x;
    if (x < 0x1p-126f) {
        Number end;
        end.bits = x < 0.0f ? 0x7fc00000u : 0xff800000u;
        return end.value;
    }
    if (n.bits >= 0x7f800000u)
        return x;
    shifted = (int32_t)n.bits - 0x3f3504f3;
    count = (float)(shifted >> 23);
    n.bits = (uint32_t)(shifted & 0x007fffff) + 0x3f3504f3u;
    s = (n.value - 1.0f) / (n.value + 1.0f);
    z = s * s;
    y = 0x1.c71c72p-4f * z;
    y = y + 0x1.24924ap-3f;
    y = y * z;
    y = y + 0x1.99999ap-3f;
    y = y * z;
    y = y + 0x1.555556p-2f;
    y = y * z;
    s = s + s;
    y = y * s;
    y = y + s;
    z = count * -0x1.bd0106p-13f;
    y = z + y;
    z = count * 0x1.63p-1f;
    return y + z;
}

//: tangent expo
static float tangent(float x)
{
    const float size = x < 0.0f ? -x : x, z = x * x;
    float y;
    if (size < 0.125f) {
        y = z * -0x1.ba1ba2p-5f;
        y = y + 0x1.111112p-3f;
        y = y * z;
        y = y + -0x1.555556p-2f;
        y = y * z;
        y = y * size;
        y = y + size;
    } else
        y = 1.0f - 2.0f / (expo(size + size) + 1.0f);
    return x < 0.0f ? -y : y;
}

//: error expo
static float error(float x)
{
    const float size = x < 0.0f ? -x : x, t = 1.0f / (1.0f + size * 0.5f);
    float y = 0x1.e1b27p-5f;
    y = y * t;
    y = y + -0x1.bef1c8p-3f;
    y = y * t;
    y = y + 0x1.f46ad2p-4f;
    y = y * t;
    y = y + 0x1.3b1224p-2f;
    y = y * t;
    y = y + 0x1.0bf632p-3f;
    y = y * t;
    y = y + 0x1.496b98p-2f;
    y = y * t;
    y = y + 0x1.1baf0ep-2f;
    y = y * t;
    y = y * expo(-(size * size));
    y = 1.0f - y;
    return x < 0.0f ? -y : y;
}

//: soft expo logarithm
/* log(1 + exp(x)) */
static float soft(float x)
{
    return logarithm(1.0f + expo(-(x < 0.0f ? -x : x))) + (x > 0.0f ? x : 0.0f);
}

//: Window
/* A window that slides over an image of [channels][height][width]; a linear layer has an image of 1 x 1. Between two
   neighbours of the image lie spread - 1 places with nothing: a transposed convolution. */
typedef struct {
    int32_t channels, height, width;
    int32_t out_channels, out_height, out_width;
    int32_t kernel_height, kernel_width, stride_y, stride_x, dilation_y, dilation_x;
    int32_t top, left, spread_y, spread_x, groups;
} Window;

//: place_in
/* Where a tap lies in the image, along one axis; -1 where it lies beside it. */
static int32_t place_in(int32_t at, int32_t spread, int32_t size)
{
    if (at < 0 || at % spread || at / spread >= size)
        return -1;
    return at / spread;
}

//: ones
static int32_t ones(uint32_t v)
{
    v -= (v >> 1) & 0x55555555u;
    v = (v & 0x33333333u) + ((v >> 2) & 0x33333333u);
    v = (v + (v >> 4)) & 0x0f0f0f0fu;
    return (int32_t)((v * 0x01010101u) >> 24);
}

//: pack
/* Bits of an image, [pixel][channels / 32]: 1 where x < threshold. The steps say how far channels and pixels lie apart. */
static void pack(const float *x, int32_t channels, int32_t pixels, int32_t channel_step, int32_t pixel_step,
                 const float *threshold, int32_t step, Bits *bits)
{
    const int32_t words = (channels + 31) / 32;
    for (int32_t i = 0; i < words * pixels; i++)
        bits[i] = 0;
    for (int32_t c = 0; c < channels; c++) {
        const float limit = threshold ? threshold[c * step] : 0.0f;
        for (int32_t p = 0; p < pixels; p++)
            bits[p * words + c / 32] |= (uint32_t)(x[c * channel_step + p * pixel_step] < limit) << (c & 31);
    }
}

//: put
static void put(Bits *stream, int32_t at, uint32_t value, int32_t n)
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
    int32_t filter_step, pixel_step; /* how far the results of two filters, and of two pixels, lie apart */
    const uint32_t *weight;
    const float *scale, *shift, *window_scale;
    float border; /* what a tap outside is off by, in units of the input's radius */
    const int32_t *limit;
    const uint32_t *flip;
} Binary;

//: gather Binary put ones place_in
/* The bits under the window as one stream, and a mask of those that count. Returns how many do. */
static int32_t gather(const Binary *layer, const Bits *bits, int32_t group, int32_t out_y, int32_t out_x,
                      Bits *seen, Bits *mask)
{
    const Window *w = &layer->window;
    const int32_t span = w->channels / w->groups, pixel = (w->channels + 31) / 32;
    const int32_t words = (span * w->kernel_height * w->kernel_width + 31) / 32;
    int32_t at = 0, count = 0;
    for (int32_t i = 0; i < words; i++)
        seen[i] = mask[i] = 0;
    for (int32_t ky = 0; ky < w->kernel_height; ky++) {
        const int32_t y = place_in(out_y * w->stride_y - w->top + ky * w->dilation_y, w->spread_y, w->height);
        for (int32_t kx = 0; kx < w->kernel_width; kx++) {
            const int32_t x = place_in(out_x * w->stride_x - w->left + kx * w->dilation_x, w->spread_x, w->width);
            const int32_t inside = y >= 0 && x >= 0;
            int32_t from = group * span, n;
            for (int32_t rest = span; rest > 0; rest -= n, from += n, at += n) {
                uint32_t all, value;
                n = rest < 32 ? rest : 32;
                if (!inside && layer->outside == 0)
                    continue;
                all = n < 32 ? ((uint32_t)1 << n) - 1 : 0xffffffffu;
                value = layer->outside < 0 ? all : 0;
                if (inside) {
                    const Bits *word = bits + (y * w->width + x) * pixel + (from >> 5);
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
static int32_t differ(const Bits *seen, const uint32_t *weight, const Bits *mask, int32_t words)
{
    int32_t count = 0;
    for (int32_t i = 0; i < words; i++)
        count += ones((seen[i] ^ weight[i]) & mask[i]);
    return count;
}

//: binary Binary gather differ
/* scale * dot + window_scale * (sum of the inputs) + ((E * (sum of the weights inside) + F * their number) + shift)
   with E = border * scale and F = border * window_scale */
static void binary(const Binary *layer, const Bits *bits, Bits *seen, Bits *mask, float *y)
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
                    float *result = y + o * layer->filter_step + p * layer->pixel_step;
                    float v = layer->scale[k * w->out_channels + o] * (float)dot;
                    if (!first)
                        v = *result + v;
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
                    *result = v;
                }
            }
}

//: binary_bits Binary gather differ
/* The same where nothing but signs is read of the result: whether dot < limit, or not where flip is set. */
static void binary_bits(const Binary *layer, const Bits *bits, Bits *seen, Bits *mask, Bits *y)
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
static void max_pool_bits(const Window *w, const Bits *bits, Bits *y)
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

//: conv Window place_in
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
                        const int32_t in_y = place_in(top + ky * w->dilation_y, w->spread_y, w->height);
                        const int32_t in_x = place_in(left + kx * w->dilation_x, w->spread_x, w->width);
                        if (in_y >= 0 && in_x >= 0) {
                            const float product = x[(c * w->height + in_y) * w->width + in_x] * *factor;
                            sum = sum + product;
                        }
                    }
            *y++ = bias ? sum + bias[o] : sum;
        }
}

//: conv_signs Window place_in
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
                        const int32_t in_y = place_in(top + ky * w->dilation_y, w->spread_y, w->height);
                        const int32_t in_x = place_in(left + kx * w->dilation_x, w->spread_x, w->width);
                        const int32_t inside = in_y >= 0 && in_x >= 0;
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

//: linear
/* [rows][features] -> [rows][out] */
static void linear(const float *x, int32_t rows, int32_t features, const float *weight, const float *bias, int32_t out,
                   float *y)
{
    for (int32_t r = 0; r < rows; r++, x += features)
        for (int32_t o = 0; o < out; o++) {
            const float *factor = weight + o * features;
            float sum = 0.0f;
            for (int32_t k = 0; k < features; k++) {
                const float product = x[k] * factor[k];
                sum = sum + product;
            }
            *y++ = bias ? sum + bias[o] : sum;
        }
}

//: matmul
/* [count][rows][inner] by [count][inner][columns]; a step of 0 takes the same matrix every time. */
static void matmul(const float *a, int32_t a_step, const float *b, int32_t b_step, int32_t count, int32_t rows,
                   int32_t inner, int32_t columns, float *y)
{
    for (int32_t n = 0; n < count; n++)
        for (int32_t r = 0; r < rows; r++)
            for (int32_t c = 0; c < columns; c++) {
                const float *left = a + n * a_step + r * inner, *right = b + n * b_step + c;
                float sum = 0.0f;
                for (int32_t k = 0; k < inner; k++) {
                    const float product = left[k] * right[k * columns];
                    sum = sum + product;
                }
                *y++ = sum;
            }
}

//: sum
/* [outer][count][inner] -> [outer][inner] */
static void sum(const float *x, int32_t outer, int32_t count, int32_t inner, float *y)
{
    for (int32_t a = 0; a < outer; a++, x += count * inner)
        for (int32_t b = 0; b < inner; b++) {
            float total = 0.0f;
            for (int32_t k = 0; k < count; k++)
                total = total + x[k * inner + b];
            *y++ = total;
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

//: running_sum
static void running_sum(const float *x, int32_t outer, int32_t count, int32_t inner, float *y)
{
    for (int32_t a = 0; a < outer; a++, x += count * inner, y += count * inner)
        for (int32_t b = 0; b < inner; b++) {
            float total = 0.0f;
            for (int32_t k = 0; k < count; k++)
                y[k * inner + b] = total = total + x[k * inner + b];
        }
}

//: place_of_largest
static int32_t place_of_largest(const float *x, int32_t count, int32_t inner)
{
    int32_t best = 0;
    for (int32_t k = 1; k < count; k++)
        if (x[k * inner] > x[best * inner])
            best = k;
    return best;
}

//: place_of_smallest
static int32_t place_of_smallest(const float *x, int32_t count, int32_t inner)
{
    int32_t best = 0;
    for (int32_t k = 1; k < count; k++)
        if (x[k * inner] < x[best * inner])
            best = k;
    return best;
}

//: largest place_of_largest
static void largest(const float *x, int32_t outer, int32_t count, int32_t inner, float *y)
{
    for (int32_t a = 0; a < outer; a++, x += count * inner)
        for (int32_t b = 0; b < inner; b++)
            *y++ = x[place_of_largest(x + b, count, inner) * inner + b];
}

//: place_largest place_of_largest
static void place_largest(const float *x, int32_t outer, int32_t count, int32_t inner, float *y)
{
    for (int32_t a = 0; a < outer; a++, x += count * inner)
        for (int32_t b = 0; b < inner; b++)
            *y++ = (float)place_of_largest(x + b, count, inner);
}

//: smallest place_of_smallest
static void smallest(const float *x, int32_t outer, int32_t count, int32_t inner, float *y)
{
    for (int32_t a = 0; a < outer; a++, x += count * inner)
        for (int32_t b = 0; b < inner; b++)
            *y++ = x[place_of_smallest(x + b, count, inner) * inner + b];
}

//: place_smallest place_of_smallest
static void place_smallest(const float *x, int32_t outer, int32_t count, int32_t inner, float *y)
{
    for (int32_t a = 0; a < outer; a++, x += count * inner)
        for (int32_t b = 0; b < inner; b++)
            *y++ = (float)place_of_smallest(x + b, count, inner);
}

//: softmax expo place_of_largest
/* Of each [count]: exp(x - largest) / sum. */
static void softmax(const float *x, int32_t outer, int32_t count, int32_t inner, float *y)
{
    for (int32_t a = 0; a < outer; a++, x += count * inner, y += count * inner)
        for (int32_t b = 0; b < inner; b++) {
            const float largest = x[place_of_largest(x + b, count, inner) * inner + b];
            float sum = 0.0f;
            for (int32_t k = 0; k < count; k++) {
                y[k * inner + b] = expo(x[k * inner + b] - largest);
                sum = sum + y[k * inner + b];
            }
            for (int32_t k = 0; k < count; k++)
                y[k * inner + b] = y[k * inner + b] / sum;
        }
}

//: log_softmax expo logarithm place_of_largest
/* Of each [count]: (x - largest) - log(sum of exp(x - largest)). */
static void log_softmax(const float *x, int32_t outer, int32_t count, int32_t inner, float *y)
{
    for (int32_t a = 0; a < outer; a++, x += count * inner, y += count * inner)
        for (int32_t b = 0; b < inner; b++) {
            const float largest = x[place_of_largest(x + b, count, inner) * inner + b];
            float sum = 0.0f, whole;
            for (int32_t k = 0; k < count; k++)
                sum = sum + expo(x[k * inner + b] - largest);
            whole = logarithm(sum);
            for (int32_t k = 0; k < count; k++)
                y[k * inner + b] = (x[k * inner + b] - largest) - whole;
        }
}

//: standardize square_root
/* Each row less its mean, over its deviation; eps is added to the variance. */
static void standardize(const float *x, int32_t rows, int32_t count, float eps, float *y)
{
    for (int32_t r = 0; r < rows; r++, x += count, y += count) {
        float sum = 0.0f, squares = 0.0f, factor;
        for (int32_t k = 0; k < count; k++)
            sum = sum + x[k];
        sum = sum / (float)count;
        for (int32_t k = 0; k < count; k++) {
            const float off = x[k] - sum, square = off * off;
            squares = squares + square;
        }
        factor = 1.0f / square_root(squares / (float)count + eps);
        for (int32_t k = 0; k < count; k++)
            y[k] = (x[k] - sum) * factor;
    }
}

//: taps
/* [outer][size][inner] -> [outer][out][inner]: each result is a weighted sum of `each` places of the axis. */
static void taps(const float *x, int32_t outer, int32_t size, int32_t inner, int32_t out, int32_t each,
                 const int32_t *from, const float *weight, float *y)
{
    for (int32_t a = 0; a < outer; a++, x += size * inner)
        for (int32_t i = 0; i < out; i++)
            for (int32_t b = 0; b < inner; b++) {
                float sum = 0.0f;
                for (int32_t k = i * each; k < (i + 1) * each; k++) {
                    const float product = x[from[k] * inner + b] * weight[k];
                    sum = sum + product;
                }
                *y++ = sum;
            }
}

//: affine
/* x * factor + offset of each channel, either of them missing (0); step 0 has one number for all channels. */
static void affine(const float *x, int32_t outer, int32_t channels, int32_t pixels, const float *factor,
                   const float *offset, int32_t step, float *y)
{
    for (int32_t n = 0; n < outer * channels; n++)
        for (int32_t p = 0; p < pixels; p++) {
            const int32_t c = n % channels * step;
            float v = *x++;
            if (factor)
                v = v * factor[c];
            if (offset)
                v = v + offset[c];
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
static void prelu(const float *x, int32_t outer, int32_t channels, int32_t pixels, const float *before,
                  const float *slope, int32_t step, const float *after, float *y)
{
    for (int32_t n = 0; n < outer * channels; n++)
        for (int32_t p = 0; p < pixels; p++) {
            const int32_t c = n % channels;
            const float z = before ? *x++ - before[c] : *x++;
            const float bent = z > 0.0f ? z : slope[c * step] * z;
            *y++ = after ? bent + after[c] : bent;
        }
}

//: maxout
/* pos * max(x, 0) + neg * min(x, 0) */
static void maxout(const float *x, int32_t outer, int32_t channels, int32_t pixels, const float *pos, const float *neg,
                   float *y)
{
    for (int32_t n = 0; n < outer * channels; n++)
        for (int32_t p = 0; p < pixels; p++) {
            const int32_t c = n % channels;
            const float v = *x++, upper = (v > 0.0f ? v : 0.0f) * pos[c], lower = (v < 0.0f ? v : 0.0f) * neg[c];
            *y++ = upper + lower;
        }
}

//: add_repeated
/* b has `period` numbers, repeated as often as a has them. */
static void add_repeated(const float *a, const float *b, int32_t period, int32_t n, float *y)
{
    for (int32_t i = 0; i < n; i++)
        y[i] = a[i] + b[i % period];
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

//: pick
/* Sizes of three axes, then for each place along each of them how far it lies in x. */
static void pick(const float *x, const int32_t *from, float *y)
{
    const int32_t *first = from + 3, *second = first + from[0], *third = second + from[1];
    for (int32_t a = 0; a < from[0]; a++)
        for (int32_t b = 0; b < from[1]; b++)
            for (int32_t c = 0; c < from[2]; c++)
                *y++ = x[first[a] + second[b] + third[c]];
}

//: pick_or_zero
static void pick_or_zero(const float *x, const int32_t *from, int32_t n, float *y)
{
    for (int32_t i = 0; i < n; i++)
        y[i] = from[i] < 0 ? 0.0f : x[from[i]];
}

//: rows
/* The rows of a table that x names. */
static void rows(const float *table, const float *x, int32_t n, int32_t width, float *y)
{
    for (int32_t i = 0; i < n; i++)
        for (int32_t k = 0; k < width; k++)
            *y++ = table[(int32_t)x[i] * width + k];
}

//: copy
static void copy(const float *x, int32_t n, float *y)
{
    for (int32_t i = 0; i < n; i++)
        y[i] = x[i];
}
