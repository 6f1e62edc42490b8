"""Mutants that survive because they are as right as the answer, each with the reason.

By question, then by the lines that differ (before, after), as `python -m tests.mutation` prints
them.
"""

from __future__ import annotations

EQUIVALENT: dict[str, dict[tuple[str, str], str]] = {
    "02.best_merge": {
        (
            "before = part(a) + part(b) - part(total)",
            "before = part(a) + part(b) + part(total)",
        ): (
            "the total is the same for every pair: it moves all gains alike, so the best stays "
            "the best"
        ),
        (
            "before = part(a) + part(b) - part(total)",
            "before = part(a) + part(b) - part(None)",
        ): (
            "part of nothing is 0, and what is subtracted is the same for every pair: the order "
            "stays"
        ),
        (
            "return max(sorted(pairs), key=lambda pair: round(gain(pair), 9))",
            "return max(sorted(pairs), key=lambda pair: round(gain(pair), 10))",
        ): (
            "rounding only makes equal gains equal that were added up in another order: ten "
            "digits do, too"
        ),
        (
            "return max(sorted(pairs), key=lambda pair: round(gain(pair), 9))",
            "return max(sorted(pairs), key=lambda pair: round(gain(pair), 8))",
        ): (
            "rounding only makes equal gains equal that were added up in another order: eight "
            "digits do, too"
        ),
    },
    "02.best_path": {
        (
            "best = [0.0] + [-math.inf] * len(word)     # best sum up to each place",
            "best = [1.0] + [-math.inf] * len(word)     # best sum up to each place",
        ): ("every cut begins at place 0, so all sums are larger by 1 and the largest is the same"),
        (
            "best = [0.0] + [-math.inf] * len(word)     # best sum up to each place",
            "best = [-1.0] + [-math.inf] * len(word)     # best sum up to each place",
        ): (
            "every cut begins at place 0, so all sums are smaller by 1 and the largest is the same"
        ),
        (
            "came_from = [0] * (len(word) + 1)",
            "came_from = [1] * (len(word) + 1)",
        ): "only places that were reached are read, and these have been written",
        (
            "came_from = [0] * (len(word) + 1)",
            "came_from = [-1] * (len(word) + 1)",
        ): "only places that were reached are read, and these have been written",
        (
            "came_from = [0] * (len(word) + 1)",
            "came_from = [0] * (len(word) + 2)",
        ): "one more place at the end, which is never read",
        (
            "for end in range(1, len(word) + 1):",
            "for end in range(len(word) + 1):",
        ): "no piece ends at place 0: the inner loop has nothing to do there",
        (
            "for end in range(1, len(word) + 1):",
            "for end in range(0, len(word) + 1):",
        ): "no piece ends at place 0: the inner loop has nothing to do there",
        (
            "if total > best[end]:",
            "if total >= best[end]:",
        ): (
            "of several cuts with the same sum any may be returned; where nothing is reached "
            "nothing is read"
        ),
    },
    "02.fertility": {
        (
            "words[-1].append(token)",
            "words[-1].append(None)",
        ): (
            "only the number of pieces of a word is used, and whether its first and only one is "
            "[UNK]"
        ),
    },
    "02.whole_words": {
        (
            'while end > place + 1 and "".join(tokens[place:end]) not in known:',
            'while end >= place + 1 and "".join(tokens[place:end]) not in known:',
        ): "one step further back, and the size is still set to at least 1 in the next line",
        (
            'while end > place + 1 and "".join(tokens[place:end]) not in known:',
            'while end > place - 1 and "".join(tokens[place:end]) not in known:',
        ): "two steps further back, and the size is still set to at least 1 in the next line",
        (
            'while end > place + 1 and "".join(tokens[place:end]) not in known:',
            'while end > place + 0 and "".join(tokens[place:end]) not in known:',
        ): "one step further back, and the size is still set to at least 1 in the next line",
        (
            "size = max(end - place, 1)",
            "size = max(end - place, 0)",
        ): "the loop stops at the first token, so the difference is never less than 1",
    },
    "03.distance_share": {
        (
            "unit = F.normalize(table.double(), dim=1)",
            "unit = F.normalize(table.double(), )",
        ): "1 is the axis that F.normalize takes if none is given",
        (
            "total = torch.zeros(len(table)).double().index_add_(0, distance, cosine)",
            "total = torch.zeros(len(table)).double().index_add_(-1, distance, cosine)",
        ): "a vector has one axis: the first is the last",
        (
            "count = torch.bincount(distance, minlength=len(table)).clamp(min=1)",
            "count = torch.bincount(distance, ).clamp(min=1)",
        ): (
            "the largest distance, one less than the rows, always occurs, so the counts are as "
            "long anyway"
        ),
        (
            "count = torch.bincount(distance, minlength=len(table)).clamp(min=1)",
            "count = torch.bincount(distance, minlength=len(table)).clamp(min=0)",
        ): "only distance 0 has the count 0, and its quotient is never read",
    },
    "03.nearest": {
        (
            "unit = F.normalize(table, dim=1)               # rows of zeros stay zeros",
            "unit = F.normalize(table, )               # rows of zeros stay zeros",
        ): "1 is the axis that F.normalize takes if none is given",
    },
    "03.segment_ids": {
        (
            "return before.clamp(max=1) * (input_ids != pad_token_id)",
            "return before.clamp(max=2) * (input_ids != pad_token_id)",
        ): "behind the second [SEP] there is only padding, which the next factor sets to 0",
    },
    "03.shift_matrix": {
        (
            "pair = torch.arange(0, hidden_size, 2, dtype=torch.float64)",
            "pair = torch.arange(0, hidden_size, 2, dtype=None)",
        ): (
            "single precision differs by far less than the tolerance, and float32 is what is "
            "returned"
        ),
        (
            "pair = torch.arange(0, hidden_size, 2, dtype=torch.float64)",
            "pair = torch.arange(0, hidden_size, 2, )",
        ): (
            "single precision differs by far less than the tolerance, and float32 is what is "
            "returned"
        ),
        (
            "blocks = torch.stack([cos, sin, -sin, cos], dim=-1).view(-1, 2, 2)",
            "blocks = torch.stack([cos, sin, -sin, cos], dim=+1).view(-1, 2, 2)",
        ): "vectors are stacked to a matrix, whose axis 1 is its last",
    },
    "03.stretch_positions": {
        (
            "upper = (at - low)[:, None].to(table.dtype)    # weight of the upper row",
            "upper = (at - low)[:, None].to(None)    # weight of the upper row",
        ): "the weights are float32 as the table is, and to(None) leaves them so",
    },
    "04.cross_attention": {
        (
            "scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])",
            "scores = query @ key.transpose(+2, -1) / math.sqrt(query.shape[-1])",
        ): "of four axes (batch, heads, seq, size) the second from the end is number 2",
    },
    "04.multi_head_bug": {
        (
            "weights = (q @ k.transpose(-2, -1) / math.sqrt(size)).softmax(dim=-1)",
            "weights = (q @ k.transpose(+2, -1) / math.sqrt(size)).softmax(dim=-1)",
        ): "of four axes (batch, heads, seq, size) the second from the end is number 2",
    },
    "04.relation_shares": {
        (
            "rest = ~(kinds.any(0, keepdim=True) | apart)",
            "rest = ~(kinds.any(0, ) | apart)",
        ): "the missing axis of length 1 comes back when it is joined with apart, which has it",
        (
            "rest = ~(kinds.any(0, keepdim=True) | apart)",
            "rest = ~(kinds.any(0, keepdim=False) | apart)",
        ): "the missing axis of length 1 comes back when it is joined with apart, which has it",
        (
            'shares = torch.einsum("hqk,rqk->hqr", asking, kinds[:, ~special])',
            'shares = torch.einsum("HQK,RQK->HQR", asking, kinds[:, ~special])',
        ): (
            "einsum takes capital letters as well: the names of the axes are other, the axes "
            "are not"
        ),
    },
    "04.relative_attention": {
        (
            "reach, seq = bias.shape[1] // 2, query.shape[-2]",
            "reach, seq = bias.shape[1] // 2, query.shape[+2]",
        ): "of four axes (batch, heads, seq, size) the second from the end is number 2",
        (
            "scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])",
            "scores = query @ key.transpose(+2, -1) / math.sqrt(query.shape[-1])",
        ): "of four axes (batch, heads, seq, size) the second from the end is number 2",
    },
    "05.token_similarity": {
        (
            "real = attention_mask[:, :, None].to(hidden_states.dtype)  # (batch, seq, 1)",
            "real = attention_mask[:, :, None].to(None)  # (batch, seq, 1)",
        ): (
            "a whole-number mask times floats gives the same floats, and counts are exact as "
            "whole numbers"
        ),
        (
            "cosine = unit @ unit.transpose(-2, -1)         # (layers, batch, seq, seq)",
            "cosine = unit @ unit.transpose(+2, -1)         # (layers, batch, seq, seq)",
        ): "of four axes (layers, batch, seq, hidden) the second from the end is number 2",
        (
            "pairs = cosine.sum(dim=(-2, -1)) - n",
            "pairs = cosine.sum(dim=(+2, -1)) - n",
        ): "of four axes (layers, batch, seq, seq) the second from the end is number 2",
        (
            "return (pairs / (n * (n - 1))).mean(dim=-1)",
            "return (pairs / (n * (n - 1))).mean(dim=+1)",
        ): "what is left is (layers, batch), whose last axis is number 1",
    },
    "06.choose_spans": {
        (
            "places = free.nonzero()[:, 0]",
            "places = free.nonzero()[:, -1]",
        ): "nonzero of a vector has one column: the last is the first",
    },
    "06.masked_loss_bug": {
        (
            'logits.transpose(1, 2), labels, ignore_index=-100, reduction="sum")',
            'logits.transpose(1, 2), labels, reduction="sum")',
        ): "-100 is what cross_entropy ignores if nothing is said",
    },
    "06.pseudo_log_likelihood": {
        (
            "places = ordinary.nonzero()[:, 0]",
            "places = ordinary.nonzero()[:, -1]",
        ): "nonzero of a vector has one column: the last is the first",
    },
    "07.find_shortcut": {
        (
            "says = above if high > low else ~above",
            "says = above if high >= low else ~above",
        ): (
            "differs only if both means are equal, and then no label has the higher mean: "
            "either side will do"
        ),
    },
    "07.hard_negatives": {
        (
            "unit = vectors / vectors.norm(dim=-1, keepdim=True)",
            "unit = vectors / vectors.norm(dim=+1, keepdim=True)",
        ): "vectors is a matrix, whose axis 1 is its last",
        (
            "return cosines.argmax(dim=-1).masked_fill(same.all(dim=-1), -1)",
            "return cosines.argmax(dim=+1).masked_fill(same.all(dim=-1), -1)",
        ): "cosines is a matrix, whose axis 1 is its last",
        (
            "return cosines.argmax(dim=-1).masked_fill(same.all(dim=-1), -1)",
            "return cosines.argmax(dim=-2).masked_fill(same.all(dim=-1), -1)",
        ): "cosines is symmetric: the best of a column is the best of the row",
        (
            "return cosines.argmax(dim=-1).masked_fill(same.all(dim=-1), -1)",
            "return cosines.argmax(dim=-0).masked_fill(same.all(dim=-1), -1)",
        ): "cosines is symmetric: the best of a column is the best of the row",
        (
            "return cosines.argmax(dim=-1).masked_fill(same.all(dim=-1), -1)",
            "return cosines.argmax(dim=-1).masked_fill(same.all(dim=None), -1)",
        ): "a row is all of one document only if there is one document, and then all rows are",
        (
            "return cosines.argmax(dim=-1).masked_fill(same.all(dim=-1), -1)",
            "return cosines.argmax(dim=-1).masked_fill(same.all(dim=+1), -1)",
        ): "same is a matrix, whose axis 1 is its last",
        (
            "return cosines.argmax(dim=-1).masked_fill(same.all(dim=-1), -1)",
            "return cosines.argmax(dim=-1).masked_fill(same.all(dim=-2), -1)",
        ): "same is symmetric: what holds for a column holds for the row",
        (
            "return cosines.argmax(dim=-1).masked_fill(same.all(dim=-1), -1)",
            "return cosines.argmax(dim=-1).masked_fill(same.all(dim=-0), -1)",
        ): "same is symmetric: what holds for a column holds for the row",
    },
    "07.share_random": {
        (
            "for left in range(1, sentences + 1):",
            "for left in range(1, sentences + 2):",
        ): "one number more is computed at the end and never read",
    },
    "08.diagnose_run": {
        (
            "elif best > 0.98 * baseline:",
            "elif best >= 0.98 * baseline:",
        ): (
            "differs only if a loss equals the rounded product 0.98 times baseline in every "
            "bit, which a check cannot ask of another way to write it"
        ),
        (
            'verdict = "overfits" if now > 1.02 * best else "learns"',
            'verdict = "overfits" if now >= 1.02 * best else "learns"',
        ): (
            "differs only if a loss equals the rounded product 1.02 times best in every bit, "
            "which a check cannot ask of another way to write it"
        ),
    },
    "08.inverse_root": {
        (
            "if cooldown is not None and step >= cooldown[0]:",
            "if cooldown is not None and step > cooldown[0]:",
        ): (
            "at the first step of the cooldown the factor is 1: both branches give the same "
            "rate there"
        ),
    },
    "08.training_days": {
        (
            "total = 0.0",
            "total = 1.0",
        ): "one operation more or less among many billions is far below any tolerance",
        (
            "total = 0.0",
            "total = -1.0",
        ): "one operation more or less among many billions is far below any tolerance",
    },
    "09.centered_cosine": {
        (
            "unit = middle / middle.norm(dim=-1, keepdim=True)",
            "unit = middle / middle.norm(dim=+1, keepdim=True)",
        ): "vectors is a matrix, whose axis 1 is its last",
    },
    "09.cls_share": {
        (
            "return share.masked_fill(total == 0, 0.0).mean(dim=-1)",
            "return share.masked_fill(total == 0, 0.0).mean(dim=+1)",
        ): "shares are (layers, batch), whose last axis is number 1",
    },
    "09.expected_gradients": {
        (
            "return torch.stack(shares).mean(dim=0).sum(dim=-1)",
            "return torch.stack(shares).mean(dim=0).sum(dim=+1)",
        ): "the mean over the baselines is (seq, hidden), whose last axis is number 1",
    },
    "09.rollout_between": {
        (
            "batch, _, seq, _ = attentions[0].shape",
            "batch, _, seq, _ = attentions[-1].shape",
        ): "all layers have the same shape, so any of them tells batch and length",
    },
    "09.saliency_bug": {
        (
            "rows.append(states.grad.norm(dim=-1))",
            "rows.append(states.grad.norm(dim=+1))",
        ): "the gradient is (seq, hidden), whose last axis is number 1",
    },
    "09.word_pool": {
        (
            "words = (mask.bool() & ~special.bool())[:, :, None].to(states.dtype)",
            "words = (mask.bool() & ~special.bool())[:, :, None].to(None)",
        ): ("a bool mask times floats gives the same floats, and its sum counts the words exactly"),
    },
    "10.best_threshold": {
        (
            "best = max([min(gaps) - 1, *gaps], key=score)",
            "best = max([min(gaps) - 2, *gaps], key=score)",
        ): (
            "any threshold below the smallest gap silences everything, and any best one may be "
            "returned"
        ),
    },
    "10.loss_bug": {
        (
            "each = -shares.gather(-1, safe[..., None])[..., 0]",
            "each = -shares.gather(-1, safe[..., None])[..., -1]",
        ): "what gather gives has a last axis of length 1: its last entry is its first",
    },
    "10.sign_test": {
        (
            "tail = sum(math.comb(n, k) for k in range(max(wins, losses), n + 1))",
            "tail = sum(math.comb(n, k) for k in range(max(wins, losses), n + 2))",
        ): "there are 0 ways to choose n + 1 of n, so nothing is added",
    },
    "10.split_groups": {
        (
            'plain = " ".join(text.lower().split())',
            'plain = "XX XX".join(text.lower().split())',
        ): "the text is only compared with others that were joined in the same way",
        (
            'plain = " ".join(text.lower().split())',
            'plain = " ".join(text.upper().split())',
        ): (
            "upper case tells the same texts apart, except a few like sharp s and ss, whose "
            "groups are then kept together: still nothing leaks"
        ),
        (
            "if len(test) >= share * len(texts):",
            "if len(test) > share * len(texts):",
        ): (
            "differs only if the share is met to the row, and then takes one group more: about "
            "the share is what is asked for"
        ),
    },
    "11.half_distance": {
        (
            "slope = (x * (y - y.mean())).sum() / (x * x).sum()",
            "slope = (x * (y + y.mean())).sum() / (x * x).sum()",
        ): "x has the mean 0, so a constant added to y adds nothing to the sum of products",
    },
    "11.smoothed_ppmi": {
        (
            "counts = counts.double()",
            "pass",
        ): "torch divides whole numbers in float32, which is exact enough for the tolerance",
        (
            "pair = counts / counts.sum()",
            "pair = counts * counts.sum()",
        ): "pairs and words are then too large by the same factor, which the quotient cancels",
    },
    "11.what_shrinks": {
        (
            "logs = [g.norm(dim=-1).log().sum() for g in (before, between, after)]",
            "logs = [g.norm(dim=+1).log().sum() for g in (before, between, after)]",
        ): "gradients are (steps, hidden), whose last axis is number 1",
    },
    "91.block_attention": {
        (
            "def __init__(self, config: BertConfig, block: int = 32):",
            "def __init__(self, config: BertConfig, block: int = 33):",
        ): "how many keys come at a time changes the memory that is needed, not the result",
        (
            "def __init__(self, config: BertConfig, block: int = 32):",
            "def __init__(self, config: BertConfig, block: int = 31):",
        ): "how many keys come at a time changes the memory that is needed, not the result",
        (
            "output_attentions: bool = False,",
            "output_attentions: bool = True,",
        ): "the argument is there for the caller and not read: there are no weights to hand out",
        (
            "for start in range(0, keys.shape[-2], self.block):",
            "for start in range(0, keys.shape[+2], self.block):",
        ): "of four axes (batch, heads, seq, size) the second from the end is number 2",
        (
            "scores = query @ keys[:, :, here].transpose(-2, -1)",
            "scores = query @ keys[:, :, here].transpose(+2, -1)",
        ): "of four axes (batch, heads, seq, size) the second from the end is number 2",
    },
    "92.mask_spans": {
        (
            "odds = torch.tensor(shares, dtype=torch.float)",
            "odds = torch.tensor(shares, dtype=None)",
        ): "shares are floats, of which torch makes a float tensor anyway",
        (
            "odds = torch.tensor(shares, dtype=torch.float)",
            "odds = torch.tensor(shares, )",
        ): "shares are floats, of which torch makes a float tensor anyway",
        (
            "places = free.nonzero()[:, 0]",
            "places = free.nonzero()[:, -1]",
        ): "nonzero of a vector has one column: the last is the first",
        (
            "if fate < 0.8:",
            "if fate <= 0.8:",
        ): "a draw is 0.8 in every bit once in millions: the shares stay as they are",
        (
            "elif fate < 0.9:",
            "elif fate <= 0.9:",
        ): "a draw is 0.9 in every bit once in millions: the shares stay as they are",
    },
    "93.pooled_head": {
        (
            "self.score = nn.Linear(hidden, 1, bias=False)",
            "self.score = nn.Linear(hidden, 1, bias=None)",
        ): "nn.Linear asks only whether bias is true, and None is not",
        (
            "return self.classifier(torch.cat([mix, most], dim=-1))",
            "return self.classifier(torch.cat([mix, most], dim=+1))",
        ): "both pools are (batch, hidden), whose last axis is number 1",
    },
}
