"""The hand-written phrases of the further rules, and which phrases training shows.

A phrase keeps or breaks one rule and says nothing about any other. ``{reference}`` is a number of five digits and
``{name}`` whoever answers.
"""

from __future__ import annotations

from dataclasses import dataclass

from experiments.support_desk import pieces


@dataclass(frozen=True)
class Wordings:
    """One set of phrases for every rule that has some.

    Attributes:
        greetings: Keep ``greet``.
        short_greetings: The same, where ``briefer`` is kept too.
        order_requests: Keep ``order-number``.
        handovers: Keep ``escalate``, with ``{team}``.
        money_handovers: The same, for who asks for money.
        short_handovers: The same, where ``briefer`` is kept too.
        sign_offs: Keep ``sign-off``, with ``{name}``.
        names: Who signs.
        two_days: Keep ``two-days``.
        questions: Keep ``question``.
        references: Keep ``case-reference``, with ``{reference}``.
        help_pages: Keep ``help-page``.
        email_requests: Keep ``email``.
        sympathies: Go with ``no-sorry``, kept or not: what can be said in its place.
        sorries: Break ``no-sorry``.
        together: Keep ``we``, in answers that say neither we nor I.
        alone: Break ``we``.
        exclamations: Break ``no-exclamation``.
    """

    greetings: tuple[str, ...]
    short_greetings: tuple[str, ...]
    order_requests: tuple[str, ...]
    handovers: tuple[str, ...]
    money_handovers: tuple[str, ...]
    short_handovers: tuple[str, ...]
    sign_offs: tuple[str, ...]
    names: tuple[str, ...]
    two_days: tuple[str, ...]
    questions: tuple[str, ...]
    references: tuple[str, ...]
    help_pages: tuple[str, ...]
    email_requests: tuple[str, ...]
    sympathies: tuple[str, ...]
    sorries: tuple[str, ...]
    together: tuple[str, ...]
    alone: tuple[str, ...]
    exclamations: tuple[str, ...]


TRAINED = Wordings(
    greetings=pieces.GREETINGS,
    short_greetings=(
        "Hi and thanks!",
        "Hello, thank you!",
        "Hi, thanks!",
        "Hi, thank you!",
        "Hello and thanks.",
        "Hey, thanks!",
        "Hello, many thanks!",
        "Dear customer, thanks!",
        "Good day, thanks!",
        "Good morning, thanks!",
        "Hi there, thanks!",
        "Good evening, thanks!",
    ),
    order_requests=pieces.ORDER_REQUESTS,
    handovers=pieces.HANDOVERS,
    money_handovers=pieces.MONEY_HANDOVERS,
    short_handovers=(
        "I'll pass it on.",
        "I'm passing it on.",
        "I'll pass this on.",
        "I'm passing this along.",
        "I'll hand it over.",
        "I'm handing this over.",
        "I'll forward this.",
        "I'm forwarding it.",
        "I'll escalate this.",
        "I'm escalating it.",
        "I'll refer this on.",
        "Let me escalate this.",
    ),
    sign_offs=(
        "Kind regards, {name}",
        "Best regards, {name}",
        "Warm regards, {name}",
        "Best wishes, {name}",
        "Kind regards, {name} from the support desk",
        "Best wishes, {name} from the support desk",
        "Warm wishes, {name}",
        "With kind regards, {name}",
        "Regards, {name}",
        "Yours, {name}",
        "All the best, {name}",
        "Take care, {name}",
        "Yours sincerely, {name}",
    ),
    names=("Dana", "Robin", "Alex", "Sam", "Priya", "Tom", "Elena", "Marc", "Yuki", "Nora", "Omar", "Julia"),
    two_days=(
        "You'll hear from us within two working days.",
        "You will hear back within two working days.",
        "Expect an answer within two working days.",
        "Expect news within two working days.",
        "You'll have an answer within two working days.",
        "There will be news within two working days.",
        "You can expect a reply within two working days.",
        "All of this is settled within two working days.",
        "This will be done within two working days.",
        "Within two working days, you'll know more.",
        "Within two working days, this will be settled.",
        "Our next message reaches you within two working days.",
        "It takes no longer than that: within two working days, it's done.",
        "Your case is closed within two working days.",
    ),
    questions=(
        "Does that work for you?",
        "Does that suit you?",
        "Is that all right with you?",
        "Is that okay?",
        "Does this help?",
        "Is there anything else?",
        "Is there anything else you need?",
        "Does that answer your question?",
        "Would that be a good way forward?",
        "Are you happy with that?",
        "Do you have any other questions?",
        "Shall it be done like this?",
        "How does that sound?",
        "Would you agree to that?",
    ),
    references=(
        "Your case reference is C-{reference}.",
        "The case reference is C-{reference}.",
        "Your reference is C-{reference}.",
        "Your case reference: C-{reference}.",
        "The reference for your case is C-{reference}.",
        "This is case C-{reference}.",
        "Your case is filed as C-{reference}.",
        "Please keep your case reference, C-{reference}.",
        "Please quote case C-{reference} next time.",
        "For your records: case reference C-{reference}.",
        "It has the case reference C-{reference}.",
        "You'll find it under C-{reference}.",
        "Your case now has a reference, C-{reference}.",
    ),
    help_pages=(
        "Our help page has more.",
        "Our help page explains the steps.",
        "You'll find more on our help page.",
        "More about this is on our help page.",
        "Please have a look at our help page.",
        "See our help page for details.",
        "The help page shows how it works.",
        "The help page answers many questions.",
        "Details are on the help page.",
        "All steps are on our help page.",
        "Our help page is always up to date.",
        "There is more on the help page.",
        "In the meantime, the help page may be useful.",
    ),
    email_requests=(
        "Could you send me your e-mail address?",
        "Could you send me the e-mail address, please?",
        "Could you tell me your e-mail address?",
        "Could you tell me the e-mail address first?",
        "Could you give me your e-mail address?",
        "Could you share the e-mail address?",
        "Could you reply with your e-mail address?",
        "Could you let me know the e-mail address?",
        "Could you confirm your e-mail address first?",
        "Could I have your e-mail address, please?",
        "Could I get the e-mail address first?",
        "May I have your e-mail address?",
        "May I ask for your e-mail address?",
        "What is your e-mail address?",
        "What is the e-mail address, please?",
    ),
    sympathies=(
        "That is not good enough.",
        "This has cost you time already.",
        "You had every reason to write.",
        "You have been patient so far.",
        "It is good that you told us.",
        "This is not how it should be.",
        "Your message shows how much this matters.",
        "It should be easier than this.",
        "Nobody likes to write such a message.",
        "You should not have to ask.",
        "Your time is worth more than this.",
        "That takes up your day.",
    ),
    sorries=(
        "Sorry for the trouble.",
        "So sorry.",
        "Sorry about all this.",
        "Sorry that you had to write.",
        "Our apologies.",
        "Please accept our apologies.",
        "Apologies for the bother.",
        "An apology is in order.",
        "Sorry to hear from you like this.",
        "Terribly sorry about it.",
        "It is regrettable that you had to ask.",
        "Sorry for taking up your time.",
        "Sincere apologies for this.",
    ),
    together=(
        "We are on it.",
        "We'll see to that.",
        "We take care of it.",
        "We know what to do.",
        "We have read every word.",
        "We'll handle the rest.",
        "We are here for you.",
        "We want this to go well.",
        "We see what you mean.",
        "We'll keep an eye on it.",
        "We have noted it.",
        "We do this every day.",
    ),
    alone=(
        "I am on it.",
        "I'll see to that.",
        "I take care of it.",
        "I know what to do.",
        "I have read every word.",
        "I'll handle the rest.",
        "Count on me.",
        "That is on my list.",
        "I see what you mean.",
        "I'll keep an eye on it.",
        "My desk is the right one.",
        "You can rely on me.",
    ),
    exclamations=(
        "Good that you wrote!",
        "What a day for you!",
        "No problem at all!",
        "Don't worry!",
        "That can be solved!",
        "Consider it settled!",
        "Leave it to us!",
        "Help is near!",
        "That's soon sorted!",
        "Let's go!",
        "Absolutely!",
        "Of course!",
        "No worries!",
    ),
)
"""The phrases of train, dev and test."""
