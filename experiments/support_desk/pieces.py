"""The hand-written pieces of the support-desk suite: what customers write about, and the parts of an answer.

Every part has many wordings, so that the house rules are the only thing the pairs have in common. ``{item}`` is what
the customer bought (always singular) and ``{team}`` the team that a problem belongs to. The customers of dev and test
write about other things, in other words, than those of train.
"""

from __future__ import annotations

from dataclasses import dataclass

DEVICES = ("kettle", "toaster", "desk lamp", "blender", "hair dryer", "speaker", "robot vacuum", "coffee grinder")
CLOTHES = ("rain jacket", "wool sweater", "summer dress", "denim shirt", "winter coat", "cardigan", "hoodie", "blouse")
HOUSEHOLD = ("garden chair", "wall mirror", "teapot", "picture frame", "rug", "bedside table", "fruit bowl", "cushion")
FLAT_PACKS = ("bookshelf", "bed frame", "standing desk", "camping tent", "shoe rack", "bunk bed", "garden swing")
VOUCHERS = ("gift card", "birthday gift card", "Christmas gift card", "wedding gift card")
SUBSCRIPTIONS = ("coffee subscription", "razor subscription", "pet food subscription", "flower subscription")


@dataclass(frozen=True)
class Topic:
    """One kind of problem: who handles it, what customers write, and what an answer can say about it.

    Attributes:
        team: The team that it can be passed on to.
        items: What it happens to, in train.
        train: Messages of train, with ``{item}``.
        dev: Items and messages of dev.
        test: Items and messages of test.
        openings: Sentences that take up the problem.
        will: Sentences that solve it without anyone else, still to be done.
        did: Sentences that solve it without anyone else, already done.
        details: Sentences that only make a long answer longer.
        refundable: Whether money back is something that the customer could be offered.
        complaint: Whether something has gone wrong, so that sympathy is in place.
    """

    team: str
    items: tuple[str, ...]
    train: tuple[str, ...]
    dev: tuple[tuple[str, str], ...]
    test: tuple[tuple[str, str], ...]
    openings: tuple[str, ...]
    will: tuple[str, ...]
    did: tuple[str, ...]
    details: tuple[str, ...]
    refundable: bool = True
    complaint: bool = True


TOPICS = (
    Topic(  # late delivery
        team="delivery",
        items=DEVICES + HOUSEHOLD,
        train=(
            "I ordered a {item} two weeks ago and it still has not arrived.",
            "My {item} was supposed to be here on Tuesday. Now it is Saturday and nobody tells me anything.",
            "Could you please check where my {item} is? The delivery date has been moved three times already.",
            "You promised next-day delivery for the {item} and I paid extra for it. That was six days ago!",
            "The {item} was meant as a present for yesterday's party. It came too late to be of any use to me.",
        ),
        dev=(
            (
                "yoga mat",
                "Day nine without the yoga mat I bought. Your tracking page just says 'preparing'. Is anyone there?",
            ),
            (
                "lawn mower",
                "Lawn mower still not here, grass up to my knees. Either it comes tomorrow or I want a full refund.",
            ),
            (
                "school bag",
                "School starts on Monday and the school bag for my son has not shipped. Should I be worried?",
            ),
        ),
        test=(
            ("keyboard", "Where on earth is the keyboard? Your email said three working days; we are now at eleven."),
            (
                "sleeping bag",
                (
                    "Our hike starts Friday and there's no sign of the sleeping bag. If it's "
                    "late again, just return what I paid."
                ),
            ),
            (
                "violin case",
                (
                    "Good evening, I am still waiting for a violin case and wondered "
                    "whether the parcel got stuck somewhere."
                ),
            ),
        ),
        openings=(
            "Sorry about the late {item}.",
            "Your {item} is overdue.",
            "Sorry that your {item} is late.",
            "Your {item} should have been there by now.",
            "The wait for your {item} has been far too long.",
            "I apologise for the late {item}.",
            "You have waited long enough for the {item}.",
            "A delay like this with your {item} is annoying.",
        ),
        will=(
            "I'll send a second {item} by express today.",
            "I'll call the courier myself and get it to you tomorrow.",
            "I'm putting another {item} in the post this afternoon.",
            "I'll upgrade the shipment to express at no cost.",
        ),
        did=("I've already sent another {item} by express.", "I have moved your parcel to tomorrow morning's van."),
        details=(
            "Storms in the north have slowed down many of our parcels since last week.",
            "The tracking page is updated only once a day, so it often lags behind the parcel.",
        ),
    ),
    Topic(  # arrived broken
        team="returns",
        items=DEVICES + HOUSEHOLD,
        train=(
            "The {item} arrived in pieces. The box had a hole in it as big as my fist.",
            "I unpacked my new {item} this morning and found a long crack down one side.",
            "Opened the parcel, and the {item} is smashed. I demand a refund.",
            "Sadly the {item} was already damaged when the courier handed it to me. What are my options?",
            "Second time I order a {item} from you, second time it comes broken! Give me my money back.",
        ),
        dev=(
            (
                "fish tank",
                (
                    "There is water all over my floor because the fish tank you shipped "
                    "leaks at every corner. Refund, please!"
                ),
            ),
            ("guitar", "The neck of the guitar snapped in transit. It breaks my heart, it was for my daughter."),
            ("salad bowl", "I'm afraid the salad bowl came chipped, and one of the servers is bent. Could you advise?"),
            ("monitor", "Dead pixels right across the middle of the monitor, straight out of the box. Unbelievable."),
        ),
        test=(
            (
                "vase",
                "Your packers wrapped a glass vase in one sheet of newspaper. Guess what I got: shards. Pay me back.",
            ),
            ("drone", "One propeller of the drone was bent out of shape on delivery, so it will not take off. Help?"),
            (
                "chess set",
                "The chess set looks as though someone sat on it; the board is split and two kings lost their heads.",
            ),
            (
                "dinner plate",
                "Hey, just so you know, the big dinner plate did not survive the trip. What happens next?",
            ),
        ),
        openings=(
            "A broken {item}, how annoying!",
            "Your {item} deserved better care.",
            "Sorry about the broken {item}.",
            "Your {item} should never have arrived like that.",
            "What a pity about the damaged {item}.",
            "I apologise for the state of your {item}.",
            "A {item} that arrives broken is no good to anyone.",
            "I'm sorry your {item} was damaged.",
        ),
        will=(
            "I'll send you a new {item} today.",
            "I'll have a replacement {item} on your doorstep by Thursday.",
            "You can keep the pieces, and I'll ship a new one now.",
            "I'm packing a fresh {item} for you myself this afternoon.",
        ),
        did=("A new {item} is already on its way to you.", "I've just shipped a replacement {item}."),
        details=(
            "Please keep the damaged parts and the box for now, in case the courier wants to see them.",
            "We test our packaging by dropping it from two metres, but some parcels are treated worse than that.",
        ),
    ),
    Topic(  # wrong size, colour or item
        team="returns",
        items=CLOTHES,
        train=(
            "I asked for a {item} in medium and you sent extra small. It doesn't even fit my daughter.",
            "The {item} I received is green. I ordered dark blue, as you can see on the invoice.",
            "Wrong {item}! Not the size, not the colour, not even the brand I picked.",
            "Hoping you can help, the {item} in the parcel is clearly meant for somebody else.",
            "The {item} is two sizes too big although I followed your size chart. I would rather have my money back.",
        ),
        dev=(
            (
                "swimsuit",
                "A swimsuit for toddlers? I am a grown woman. Kindly take this back and refund the whole amount.",
            ),
            (
                "cycling helmet",
                "My cycling helmet is an L, the label says M, and the colour is pink rather than black.",
            ),
            ("phone case", "Got a phone case for the wrong model. Can it be swapped without me paying postage?"),
        ),
        test=(
            (
                "pyjama set",
                "Stripes instead of dots, adult instead of kids: that pyjama set has nothing to do with what I chose.",
            ),
            (
                "ski suit",
                (
                    "We leave for the Alps tomorrow and the ski suit is a child's size. "
                    "Useless! I expect every penny back."
                ),
            ),
            ("baseball cap", "Quick one: baseball cap ordered in red, got it in brown. Can I exchange?"),
            ("watch strap", "Your website says the watch strap is 22 mm; what lies in front of me measures 18."),
        ),
        openings=(
            "The wrong {item}, sorry!",
            "That {item} isn't yours.",
            "Sorry that we sent the wrong {item}.",
            "That is not the {item} you chose.",
            "We clearly mixed up your {item}.",
            "I apologise for the mix-up with your {item}.",
            "You should have had the right {item}.",
            "The wrong {item} is our mistake.",
        ),
        will=(
            "I'll send the right {item} today.",
            "I'll swap it and post the correct {item} tonight.",
            "Keep the wrong one, and I'll ship the right {item} tomorrow.",
            "I'm exchanging the {item} for you right now.",
        ),
        did=("I've already posted the correct {item}.", "The right {item} left our warehouse an hour ago."),
        details=(
            "Our shelves were rearranged this month, and a few labels ended up in the wrong place.",
            "Anything unworn with its tags on can be exchanged for thirty days.",
        ),
    ),
    Topic(  # charged twice
        team="billing",
        items=DEVICES + CLOTHES,
        train=(
            "You charged my card twice for one {item}. Please return the second payment.",
            "My bank statement shows two payments for the same {item}. Why?",
            "I bought one {item} and paid for two. I want the extra money back today!",
            "There seems to be a double charge for my {item}; maybe the page reloaded when I clicked.",
            "Charged twice for a {item}, and my rent is due on Monday. Refund the second charge immediately.",
        ),
        dev=(
            (
                "toy castle",
                (
                    "Paid for the toy castle on my card, then once more through my "
                    "phone, it seems. Both went through. Ugh."
                ),
            ),
            (
                "printer",
                "Two identical debits for a printer on the 4th and 5th. I insist that one of them is reversed.",
            ),
            ("perfume", "I don't understand my statement: why has the price of the perfume been taken a second time?"),
        ),
        test=(
            (
                "microwave",
                "So one microwave costs double these days? Your shop took the sum two times. Reverse it now.",
            ),
            (
                "scarf",
                (
                    "Hello, could someone look at my bill? The scarf appears on it in "
                    "duplicate although I bought a single one."
                ),
            ),
            (
                "bike pump",
                "Thieves! The amount for my bike pump left my account at noon and again at one. I demand it back!",
            ),
            (
                "board game",
                "Strange thing: my app lists the board game payment twice. Is one of them only a reservation?",
            ),
        ),
        openings=(
            "One {item}, two payments, sorry!",
            "You paid twice for one {item}.",
            "Sorry about the double charge for your {item}.",
            "Nobody should pay twice for one {item}.",
            "Two charges for one {item} is one too many.",
            "I apologise for the second {item} payment.",
            "Being charged twice for a {item} is no fun.",
            "I see why the two {item} payments worry you.",
        ),
        will=(
            "I'll cancel the second charge myself.",
            "I'll reverse the extra payment this afternoon.",
            "I'm striking the second payment from your bill now.",
            "I'll call your bank today and clear it up.",
        ),
        did=("I've already reversed the second charge.", "I have taken the extra payment off your bill."),
        details=(
            "When the payment page is reloaded, the bank sometimes books the same amount again.",
            "Some second bookings are only reservations, which vanish by themselves after a few days.",
        ),
    ),
    Topic(  # disappointed, wants the money back
        team="billing",
        items=DEVICES + HOUSEHOLD + CLOTHES,
        train=(
            "The {item} looks nothing like the picture. I want a full refund.",
            "Honestly, the {item} is cheap rubbish. Give me my money back or I'll tell everyone I know.",
            "I am not happy with the {item} and would like my money back, please.",
            "How do I get my money back for the {item}? I only used it once and don't like it.",
            "Just confirm that you will refund the {item}. I won't discuss this any longer.",
        ),
        dev=(
            (
                "air fryer",
                "Your advert called this air fryer silent. It roars like a plane! Refund me, I won't ask again.",
            ),
            ("pillow", "The pillow smells of chemicals and I can't sleep on it. May I have the price returned?"),
            ("smart watch", "Four weeks of arguing about one smart watch. Say yes or no: do I get my cash back?"),
            (
                "telescope",
                "We hoped to see Saturn; through this telescope I barely see my neighbour. Please refund us.",
            ),
        ),
        test=(
            (
                "mattress",
                "After ten nights on your mattress my back is ruined. The slogan says 'love it or money back', so pay.",
            ),
            ("juicer", "I regret buying the juicer. Far too loud, far too big. Tell me that I'll be reimbursed."),
            (
                "face cream",
                "That face cream gave me a rash and I threw it away. Surely you'll refund a loyal customer?",
            ),
            (
                "puzzle",
                (
                    "A thousand-piece puzzle with pieces that don't fit each other! Grandpa gave "
                    "up. We'd like the purchase price back."
                ),
            ),
        ),
        openings=(
            "Sorry about the {item}.",
            "Pity about the {item}.",
            "Sorry that the {item} let you down.",
            "What a shame about the {item}.",
            "I hear that the {item} is not for you.",
            "I understand you no longer want the {item}.",
            "Your disappointment with the {item} is clear.",
            "A {item} should please you, and this one doesn't.",
        ),
        will=(
            "I'll exchange the {item} for a better model today.",
            "I'll send you a different {item} to try.",
            "I'm booking a pickup of the {item} for tomorrow.",
            "I'll take the {item} back myself, no questions asked.",
        ),
        did=("I've booked a courier to collect the {item}.", "I have already sent you a better model."),
        details=(
            "Opinions about this product differ a great deal, and I will add yours to our notes.",
            "Photos in our shop are taken under studio light, which flatters almost everything.",
        ),
    ),
    Topic(  # change of address
        team="delivery",
        items=DEVICES + HOUSEHOLD,
        train=(
            "I just moved and my {item} is going to the old flat. Can you change the address?",
            "Please send the {item} to my office instead, nobody is home during the day.",
            "I typed the wrong house number for my {item}. It should be 14, not 41.",
            "Is it still possible to redirect the {item} to my sister's place?",
            "Your site won't let me edit the address for the {item} and it ships tonight. Hurry, please!",
        ),
        dev=(
            ("oven glove", "Silly me, I left out the flat number for the oven glove. It's 3B. Can that be added?"),
            (
                "rocking horse",
                (
                    "We're having building work, so the rocking horse can't come to us. "
                    "Could the shop round the corner take it?"
                ),
            ),
            ("harmonica", "The harmonica must go to my parents in Leeds rather than to me. Doable?"),
        ),
        test=(
            (
                "umbrella",
                (
                    "Our street has been renamed, and I fear that the umbrella will end up "
                    "who knows where. Please correct it."
                ),
            ),
            ("globe", "I'd prefer collecting the globe from a pick-up shop, since the postman keeps missing me."),
            (
                "bird feeder",
                "Wrong postcode on the bird feeder parcel, my fault entirely. Is there still time to fix that?",
            ),
        ),
        openings=(
            "A new address, understood.",
            "Your {item} needs redirecting.",
            "Good that you wrote before the {item} went out.",
            "A new address for your {item} should be possible.",
            "Let's get your {item} to the right door.",
            "I understand the {item} has to go elsewhere.",
            "An address can change, even for a {item}.",
            "I see, the {item} needs another address.",
        ),
        will=(
            "I'll change the address right now.",
            "I'll change it now.",
            "I'll redirect the {item} myself this afternoon.",
            "I'm correcting the label before the van leaves.",
            "I'll stop the parcel and send it to the new place.",
        ),
        did=("I've changed the address in our system.", "The {item} has already been redirected."),
        details=(
            "Labels are printed in the evening, so changes during the day usually reach the van in time.",
            "Parcels that cannot be delivered come back to our warehouse within a week.",
        ),
        refundable=False,
        complaint=False,
    ),
    Topic(  # missing parts
        team="spare parts",
        items=FLAT_PACKS,
        train=(
            "The screws for the {item} are missing, so I can't put it together.",
            "I counted three times: my {item} came with seven legs and bolts instead of twelve.",
            "There was no manual in the box with the {item}. Do you have one?",
            "Half of the {item} is missing! I have spent my whole Sunday on this. I want a refund.",
            "One side panel of the {item} was not in the box. Could you send it separately?",
        ),
        dev=(
            (
                "trampoline",
                "No springs, no trampoline. The kids are crying. Refund this thing or bring us the springs.",
            ),
            ("wardrobe", "The bag labelled 'C' isn't in the wardrobe carton, and step five needs it."),
            ("model railway", "I opened the model railway and the transformer is absent. Was it forgotten?"),
        ),
        test=(
            (
                "pergola",
                "Two of six posts never came with our pergola. It has been lying in the mud since. Money back, please.",
            ),
            (
                "sewing machine",
                "Is the foot pedal sold separately? My sewing machine came without it and the page shows one.",
            ),
            ("rowing boat", "An inflatable rowing boat without a valve is just a rubber carpet. Whom do I talk to?"),
        ),
        openings=(
            "Sorry about the incomplete {item}.",
            "Your {item} is incomplete.",
            "Sorry about the missing parts of your {item}.",
            "Your {item} should have come complete.",
            "A {item} with parts missing is no use.",
            "I apologise for the incomplete {item}.",
            "It is annoying to have half a {item}.",
            "What a nuisance with the incomplete {item}.",
        ),
        will=(
            "I'll post the missing parts today.",
            "I'll send you a complete {item} tomorrow.",
            "I'm putting the parts in an envelope for you now.",
            "I'll have everything that is missing with you by Friday.",
        ),
        did=("I've already posted the missing parts.", "The missing parts left our store this morning."),
        details=(
            "Small parts sometimes hide in the foam at the bottom of the box, so a second look can help.",
            "All of our manuals are also available on the website, under the name of the product.",
        ),
    ),
    Topic(  # cancellation
        team="orders",
        items=DEVICES + CLOTHES,
        train=(
            "Please cancel my {item}. I ordered it by mistake an hour ago.",
            "I want to cancel the {item} and get my money back before it ships.",
            "I found the same {item} cheaper elsewhere, so cancel mine.",
            "Cancelled my {item} last week and you shipped it anyway. Where is my refund?",
            "Is it too late to cancel a {item} that I bought last night? My wife got one as well.",
        ),
        dev=(
            ("laptop stand", "I hit 'buy' on the laptop stand while half asleep. Undo it, would you?"),
            ("tennis racket", "Changed my mind about the tennis racket. Stop the shipment and wire me the money back."),
            (
                "tandem bicycle",
                "The tandem bicycle was a joke between friends, and no one wants it. Scrap the purchase and repay me.",
            ),
            ("wine rack", "My husband says no to the wine rack. Can the purchase be called off?"),
        ),
        test=(
            (
                "popcorn maker",
                "Abort, abort! My toddler bought a popcorn maker with my phone. I need that payment returned.",
            ),
            ("hammock", "The cancel button for the hammock is greyed out. Does that mean it's already packed?"),
            (
                "office chair",
                (
                    "Our company closed the branch, so the office chair is no longer "
                    "required. Kindly withdraw the purchase."
                ),
            ),
        ),
        openings=(
            "No {item}, then.",
            "Cancelling the {item}, understood.",
            "I see you no longer want the {item}.",
            "Cancelling the {item} makes sense.",
            "Let's see about stopping the {item}.",
            "I understand you want to cancel the {item}.",
            "It happens, and a {item} can be cancelled.",
            "You would like to call off the {item}.",
        ),
        will=(
            "I'll cancel it right now.",
            "I'll stop the {item} before it leaves.",
            "I'm taking the {item} off the packing list.",
            "I'll cancel the {item} myself this afternoon.",
        ),
        did=("I've cancelled the {item} for you.", "The {item} is off the packing list."),
        details=(
            "Parcels are packed from four in the morning, so there are usually some hours to change one's mind.",
            "If a parcel is already with the courier, it can simply be refused at the door.",
        ),
        complaint=False,
    ),
    Topic(  # stopped working, warranty
        team="warranty",
        items=DEVICES,
        train=(
            "My {item} stopped working after five months. Isn't there a two-year warranty?",
            "The {item} makes a burning smell whenever I switch it on. Is that safe?",
            "Bought a {item} in spring, dead by autumn. I want my money back, not a repair.",
            "How do I make a warranty claim? The {item} only works if I shake it.",
            "This is the third repair of the same {item}. Enough. Refund me!",
        ),
        dev=(
            (
                "freezer",
                (
                    "Everything in my freezer has thawed for the second time this year. I "
                    "want what I paid, not a technician."
                ),
            ),
            ("e-reader", "The e-reader freezes on page one since the last update. Does the guarantee cover that?"),
            ("fan heater", "Sparks! Actual sparks from the fan heater. What shall I do with it?"),
        ),
        test=(
            (
                "dishwasher",
                (
                    "Fourteen months old and the dishwasher already leaves everything dirty. "
                    "Under guarantee I'm owed a refund, right?"
                ),
            ),
            ("headset", "The left ear of my headset went silent overnight. Still covered, I believe?"),
            (
                "waffle iron",
                "Handle of the waffle iron came off in my hand. Never dropped it. What does your guarantee say?",
            ),
        ),
        openings=(
            "Sorry about your {item}.",
            "Your {item} failed early.",
            "Sorry that your {item} gave up so soon.",
            "A {item} ought to last longer than that.",
            "It is a pity about your {item}.",
            "Please unplug the {item} for now.",
            "I apologise for the trouble with your {item}.",
            "Your {item} should not fail this early.",
        ),
        will=(
            "I'll send you a new {item} today.",
            "I'll repair the {item} for free.",
            "I'm shipping you the newer model this afternoon.",
            "I'll book a technician to visit you tomorrow.",
        ),
        did=("I've already booked a free repair.", "A new {item} is already on its way to you."),
        details=(
            "Our devices carry a warranty of two years, which covers faults but not wear.",
            "It helps to keep the receipt, since the date of purchase decides what is covered.",
        ),
    ),
    Topic(  # return labels and returned goods
        team="returns",
        items=CLOTHES + HOUSEHOLD,
        train=(
            "I'd like to send the {item} back, but there was no return label in the parcel.",
            "The return label for the {item} won't print. The file is just empty.",
            "I returned the {item} three weeks ago and have not seen a cent. Pay me back now.",
            "The post office says that the label on my {item} has expired. What should I do?",
            "Do I really have to pay postage to return a {item} that you advertised as free to return?",
        ),
        dev=(
            ("cat tree", "How on earth am I supposed to return a cat tree? The label is for a shoebox-sized parcel!"),
            (
                "camera bag",
                "You received my camera bag on the 2nd, I have the receipt. It's the 30th. My money, please.",
            ),
            ("wig", "I lost the sticker needed for giving back the wig. Could another one be sent?"),
        ),
        test=(
            ("carpet", "The courier refused my carpet because the barcode was smudged. Can I have a new one?"),
            (
                "binoculars case",
                "The binoculars case went back on Easter Monday. Now it's June, and my refund is where exactly?",
            ),
            ("prom dress", "Prom is over, the dress is unworn, yet your returns page only shows an error. I'm lost."),
        ),
        openings=(
            "Sorry about the {item} return.",
            "Returning a {item} can be tricky.",
            "Sorry about the trouble returning your {item}.",
            "Sending back a {item} should be easier.",
            "The return of your {item} should run smoothly.",
            "I apologise for the difficult {item} return.",
            "You should not have to chase a returned {item}.",
            "I see that returning the {item} is a struggle.",
        ),
        will=(
            "I'll email you a new label now.",
            "I'll send a courier for the {item} tomorrow.",
            "I'm making a fresh label for you as we speak.",
            "I'll settle the return myself this afternoon.",
        ),
        did=("I've already emailed you a new label.", "I have closed the return for you."),
        details=(
            "Labels are valid for fourteen days and can be printed at most post offices.",
            "A returned parcel needs about a week until it has been unpacked and checked.",
        ),
    ),
    Topic(  # cannot log in
        team="accounts",
        items=DEVICES + CLOTHES,
        train=(
            "I can't log in to see when my {item} will come. The password reset never arrives.",
            "Your website says that my account does not exist, but I bought a {item} with it yesterday!",
            "My account is locked and I need the invoice for my {item}. What can I do?",
            "The login code goes to my old phone. How can I check on my {item} now?",
            "Somebody else's {item} shows up in my account. Have I been hacked?",
        ),
        dev=(
            ("ukulele", "After the site relaunch all I see is a white page, so no idea how my ukulele is doing."),
            (
                "paint set",
                "Two-factor texts never come through, which means I can't tell you when the paint set was bought.",
            ),
            ("backpack", "I mistyped my email when buying a backpack, and now every message goes to a stranger."),
        ),
        test=(
            (
                "hedge trimmer",
                (
                    "Captcha after captcha, and I never reach the page with my hedge "
                    "trimmer. Are you keeping me out on purpose?"
                ),
            ),
            ("ice cream maker", "I'm 82 and don't get these passkeys. I only want to know about my ice cream maker."),
        ),
        openings=(
            "Sorry about the login trouble.",
            "No access to your account, understood.",
            "Sorry that you can't reach your account.",
            "Not seeing your {item} online must be annoying.",
            "Your account should show you the {item}.",
            "I apologise for the trouble with your login.",
            "You should be able to track your {item}.",
            "I see that our website is keeping you out.",
        ),
        will=(
            "I'll reset your password now.",
            "I'll unlock the account myself this afternoon.",
            "I'm sending you a new login link right away.",
            "I'll set up a new account for you today.",
        ),
        did=("I've unlocked your account.", "I have just reset your password."),
        details=(
            "Messages from our website sometimes end up in the spam folder, so please look there too.",
            "For your safety, an account is locked after five wrong passwords.",
        ),
        refundable=False,
    ),
    Topic(  # subscriptions
        team="subscriptions",
        items=SUBSCRIPTIONS,
        train=(
            "I cancelled my {item} in March and you still take money every month. Refund all of it!",
            "Can I pause my {item} for the summer? I'll be away until September.",
            "How do I end the {item}? There is no button for it anywhere.",
            "The price of my {item} has gone up without any warning. I want the difference back.",
            "I signed up for one free month of the {item} and was charged for a year. Money back, now!",
        ),
        dev=(
            (
                "tea subscription",
                "Nobody told me the tea subscription renews itself! Another 90 gone. Kindly return it.",
            ),
            ("snack subscription", "Could my snack subscription come every other month rather than monthly?"),
            (
                "comic subscription",
                "For three issues now, my comic subscription has brought the same number. What's wrong?",
            ),
        ),
        test=(
            (
                "vitamin subscription",
                (
                    "My late mother's vitamin subscription keeps billing her account. "
                    "Please end it and repay the last payments."
                ),
            ),
            (
                "wine club subscription",
                "I'd like fewer bottles per delivery from the wine club subscription. Where do I set that?",
            ),
            (
                "diaper subscription",
                (
                    "Our boy is potty trained, so the diaper subscription can stop. You "
                    "billed today; I want that refunded."
                ),
            ),
        ),
        openings=(
            "Happy to help with your {item}.",
            "Let's look at your {item}.",
            "Let's get your {item} in order.",
            "Your {item} should be easier to manage.",
            "I see what you need for your {item}.",
            "I have read your note about the {item}.",
            "A {item} should suit you, not us.",
            "I understand your wish for the {item}.",
        ),
        will=(
            "I'll change the {item} right now.",
            "I'll set it up the way you want.",
            "I'm adjusting the plan for you this afternoon.",
            "I'll correct the {item} myself today.",
        ),
        did=("I've changed the plan for you.", "I have corrected the {item} in our system."),
        details=(
            "Plans renew on the first day of the month unless they were changed before.",
            "The settings of a plan are on the last page of the account menu, which few people find.",
        ),
        complaint=False,
    ),
    Topic(  # gift cards
        team="gift cards",
        items=VOUCHERS,
        train=(
            "The code on my {item} does not work. It says 'already used', which is not true.",
            "I bought a {item} for a friend and the email never reached her.",
            "My {item} expired last week. I think that's unfair. I want the value back in cash.",
            "There were 50 on my {item}, now the balance shows zero. Where did the money go?",
            "Can I use a {item} together with a discount code? The checkout refuses it.",
        ),
        dev=(
            (
                "anniversary gift card",
                (
                    "Scratched the silver field on my anniversary gift card too hard, and "
                    "now the digits are unreadable. Oops."
                ),
            ),
            (
                "graduation gift card",
                "I'd rather have cash than a graduation gift card. Please pay out the 100, it's unused.",
            ),
            ("digital gift card", "Spelled my nephew's name wrong on a digital gift card. Can it be reissued?"),
        ),
        test=(
            (
                "Mother's Day gift card",
                (
                    "Mum opened her Mother's Day gift card and it was blank inside. How "
                    "embarrassing! Return my 40, please."
                ),
            ),
            (
                "anonymous gift card",
                "Someone sent me an anonymous gift card, and the shop till would not take it. Is it real?",
            ),
            ("staff gift card", "Our staff gift card was activated with 25 rather than 75. Could you put that right?"),
        ),
        openings=(
            "Sorry about the {item}.",
            "Your {item} should work.",
            "Sorry about the trouble with the {item}.",
            "A {item} should bring joy.",
            "The {item} ought to work at once.",
            "I apologise for the problem with your {item}.",
            "That is not what a {item} is for.",
            "I see why the {item} has annoyed you.",
        ),
        will=(
            "I'll send you a new code today.",
            "I'll put the value back on the card myself.",
            "I'm emailing a new {item} right now.",
            "I'll replace the {item} this afternoon.",
        ),
        did=("I've just emailed you a new code.", "I have replaced the {item} already."),
        details=(
            "Codes are easily misread, since the letter O and the zero look much alike.",
            "Our cards are valid for three years and can be used in several steps.",
        ),
    ),
    Topic(  # marked as delivered, not there
        team="delivery",
        items=DEVICES + HOUSEHOLD,
        train=(
            "Tracking says that my {item} was delivered yesterday, but there is nothing at my door.",
            "The courier left my {item} in the rain and someone took it. I want a refund.",
            "According to you a neighbour signed for the {item}. I have no neighbours!",
            "My {item} seems to be lost. The tracking has not moved for ten days.",
            "The photo shows my {item} in front of a door that isn't mine. Where did you leave it?",
        ),
        dev=(
            ("drill", "'Handed to resident', it says. I was at work and live alone. So who has my drill? Pay up."),
            ("tablet", "The carton for the tablet reached me taped up again and completely empty. I feel cheated."),
            ("garden gnome", "Has my garden gnome run away? Marked as dropped off, yet the porch is bare."),
        ),
        test=(
            (
                "projector",
                (
                    "Your driver claims to have thrown a projector over my fence. There's "
                    "no fence here. Reimburse me at once."
                ),
            ),
            (
                "knitting kit",
                (
                    "I looked under the mat, behind the bins, everywhere: no knitting kit, "
                    "despite the 'successful drop-off' text."
                ),
            ),
            (
                "skateboard",
                "The skateboard got sent back to you, they say, because I wasn't in. But I was home all day!",
            ),
        ),
        openings=(
            "Sorry about the lost {item}.",
            "Your {item} is missing.",
            "Sorry that your {item} went astray.",
            "Your {item} should be with you.",
            "A lost {item} is bad news.",
            "I apologise for the missing {item}.",
            "It is worrying that the {item} has vanished.",
            "You paid for a {item} and have none.",
        ),
        will=(
            "I'll send another {item} today.",
            "I'll ring the courier and find the {item} myself.",
            "I'm shipping a second {item} this afternoon.",
            "I'll have a new {item} with you on Wednesday.",
        ),
        did=("I've already shipped another {item}.", "A second {item} left our warehouse this morning."),
        details=(
            "Couriers record where they stood when they scanned a parcel, which often helps to find it.",
            "About one lost parcel in three turns up with a neighbour within two days.",
        ),
    ),
    Topic(  # discounts and prices
        team="billing",
        items=DEVICES + CLOTHES + HOUSEHOLD,
        train=(
            "The 20 percent code was not taken off when I bought the {item}. Please refund the difference.",
            "I bought a {item} on Monday and on Tuesday it was half the price. Can I have the rest back?",
            "Why did I pay shipping for the {item}? The banner says free delivery.",
            "Your checkout added a warranty to my {item} that I never wanted. Take it off and pay me back.",
            "The student discount for the {item} disappeared on the last page. Did I do something wrong?",
        ),
        dev=(
            ("car seat", "The car seat cost me more online than in your store window. I'd like that gap paid back."),
            ("apron", "My newsletter coupon vanished while I was paying for an apron. Can it be applied afterwards?"),
            ("razor", "Customs wants 30 for a razor from you! Nobody mentioned this. I expect you to cover it."),
        ),
        test=(
            (
                "aquarium light",
                (
                    "'Buy one, get one free', your poster said. I paid for both, aquarium "
                    "light and spare. Correct that and repay me."
                ),
            ),
            ("lunch box", "I had enough points for the lunch box, but none were used. Can you apply them later?"),
            (
                "sofa",
                "You dropped the sofa by 300 the morning after I bought it. I feel ripped off. Give me the difference.",
            ),
        ),
        openings=(
            "Sorry about the {item} price.",
            "The {item} price, understood.",
            "Sorry about the price of your {item}.",
            "The price of the {item} needs a look.",
            "I apologise for the confusion about the {item} price.",
            "A {item} should cost what we said.",
            "I see why the {item} bill surprised you.",
            "Your {item} seems to have cost too much.",
        ),
        will=(
            "I'll correct the bill today.",
            "I'll send you a voucher for the difference.",
            "I'm changing the price of the {item} now.",
            "I'll take the extra cost off myself.",
        ),
        did=("I've corrected the bill already.", "I have sent you a voucher for the difference."),
        details=(
            "Codes have to be entered before the payment page, which is not easy to see on a phone.",
            "Prices in our shop change every night, up as well as down.",
        ),
    ),
)

MESSAGE_OPENERS = (
    "Hi.",
    "Hello there.",
    "Dear team.",
    "Hey!",
    "Excuse me.",
    "Me again.",
    "Good day.",
    "Hello, customer here.",
)
MESSAGE_CLOSERS = (
    "Please help.",
    "Can you sort this out?",
    "I'm rather upset.",
    "Not impressed.",
    "What now?",
    "I hope you can help me.",
    "Please answer soon.",
    "I have been a customer for years.",
    "I don't know what to do.",
)
MONEY_CLOSERS = (
    "I want my money back.",
    "Refund me, please.",
    "I expect a full refund.",
    "Just give me my money back!",
    "When do I get my refund?",
    "Otherwise I want a refund.",
)

GREETINGS = (
    "Hi, thanks for writing!",
    "Hello, and thanks for your message.",
    "Hi there, thank you for reaching out.",
    "Hello! Thanks for letting us know.",
    "Good morning, and thank you for writing.",
    "Dear customer, thank you for your message.",
    "Hi! Thank you for telling us.",
    "Hello there, thanks for getting in touch.",
    "Good day, thanks for your note.",
    "Hi, many thanks for contacting us.",
    "Good afternoon, thank you for contacting us.",
    "Hello, thank you!",
    "Dear customer, thanks for asking.",
    "Hey, thanks for the message!",
    "Good evening, thanks for your patience.",
    "Hi and thanks!",
)

# Many begin alike: a small model finds out what all of them ask for sooner than it finds one of many wordings.
ORDER_REQUESTS = (
    "Could you send me your order number?",
    "Could you send me the order number, please?",
    "Could you tell me your order number?",
    "Could you tell me the order number first?",
    "Could you give me your order number?",
    "Could you share the order number?",
    "Could you reply with your order number?",
    "Could you let me know the order number?",
    "Could you confirm your order number first?",
    "Could I have your order number, please?",
    "Could I get the order number first?",
    "May I have your order number?",
    "May I ask for your order number?",
    "What is your order number?",
    "What is the order number, please?",
)

LOOKUPS = (
    "I've found your order.",
    "I can see it on my screen.",
    "I have your order in front of me.",
    "I've looked it up.",
    "Your order is open here.",
    "I found it under your name.",
    "Your details are all here.",
    "Our system shows everything I need.",
    "I have all the details.",
    "I've opened your file.",
    "I see the purchase in our records.",
    "I was able to trace it by your email.",
    "Your purchase is easy to find.",
)

HANDOVERS = (
    "I'll pass this on to our {team} team.",
    "I'm forwarding this to our {team} team.",
    "I'll hand this over to a specialist from {team}.",
    "Let me pass this to a colleague in {team}.",
    "I'll forward your message to our {team} team.",
    "I'm handing this over to the {team} team.",
    "I'll escalate this to our {team} team.",
    "I'd like to hand this to a colleague from {team}.",
    "I can pass this along to our {team} team.",
    "A specialist should look at this, so I'll pass it on.",
    "I'm passing your case to the {team} team.",
    "I'll refer this to our {team} team.",
    "I'll put you through to a colleague in {team}.",
    "Let me transfer this to our {team} team.",
    "I'll ask our {team} team to look into it.",
    "I'll pass it on.",
    "My colleague in {team} decides this, so I'll forward it.",
    "I'll bring this to the {team} team.",
)
MONEY_HANDOVERS = (
    "I can't promise a refund, but I'll pass this to our {team} team.",
    "Refunds are not mine to decide, so I'll forward this to {team}.",
    "I'll pass your wish for a refund on to the {team} team.",
    "Whether money is due is for the {team} team to say; I'll hand this over.",
)

ALONE = (
    "I'll take care of it now.",
    "I'll sort it out today.",
    "I'll fix this myself.",
    "Leave it with me, I'll see to it tonight.",
)

REFUNDS_TO_COME = (
    "I'll refund you in full today.",
    "We'll refund you right away.",
    "You will get your money back within three days.",
    "You'll have your refund by Friday.",
    "I'll issue a full refund this afternoon.",
    "We'll send the money back to your card tomorrow.",
    "I promise you a full refund.",
    "You'll be fully refunded by the end of the week.",
    "Your refund will be with you in two days.",
    "We will reimburse you by tomorrow evening.",
    "I'll gladly give you your money back.",
    "I'm going to process your refund myself this evening.",
    "Let me refund you straight away.",
    "We'll pay you back in full.",
    "Your money will be back on your card by Monday.",
    "I'll refund you.",
    "We'll refund you and pass this on to our {team} team.",
    "I'll issue the refund first and then forward this to {team}.",
    "You'll get your money back, and I'll hand the rest to {team}.",
)
REFUNDS_DONE = (
    "A refund is already on its way to you.",
    "I've just issued your refund.",
    "I have refunded the full amount to your card.",
    "Your refund has been processed.",
    "I've sent the money back to your account.",
    "We have already credited your card in full.",
    "I've approved a full refund for you.",
    "Your money is on its way back.",
)

# Sentences that any answer can carry, whatever its traits. Asides are short enough for a brief answer; the ones about a
# complaint only go where something has gone wrong. Endings close a long answer.
ASIDES = (
    "Your message is clear.",
    "I have made a note of it.",
    "It was right to write to us.",
    "Let's settle this quickly.",
    "I'm here to help.",
    "That should not take long.",
    "Let's get this sorted.",
)
COMPLAINT_ASIDES = (
    "That must be annoying.",
    "I understand the frustration.",
    "This should not have happened.",
    "I would feel the same.",
    "We can do better.",
    "That is not our usual standard.",
    "I know this costs you time.",
    "Let's put this right.",
    "You deserve better.",
)
FILLERS = (
    "I have read your message carefully so that nothing in it gets lost.",
    "We have been busier than usual this month, and some things take longer than they should.",
    "I know that your time is valuable, so I will keep this as simple as I can.",
    "We are a small shop, and every single customer matters a great deal to us.",
    "A note in your customer file makes sure that you will not have to explain this twice.",
    "Our terms describe the usual steps, although they are admittedly not an easy read.",
    "I realise that you may have had other plans for your day than writing to us.",
    "It is one of the more common requests at this desk, so we know what to look at.",
)
COMPLAINT_FILLERS = (
    "I understand how frustrating this is, especially when you were counting on us.",
    "This is not the experience that we want anyone to have with our shop.",
    "Writing to us straight away was right, because small problems are easier to fix early.",
    "We take reports like yours seriously and use them to improve how we work.",
    "I would be annoyed too if this had happened to me.",
    "It is never pleasant when something that should be simple turns out to be complicated.",
    "Problems of this kind are rare with us, which is no comfort when you are the one who has them.",
    "We look at cases like yours every Friday to find out what went wrong.",
)
ENDINGS = (
    "Most cases like this one are settled within two or three working days.",
    "You can reply to this message at any time, and it will reach the same desk.",
    "Please tell us if there is anything else that we should know about it.",
    "Our desk is open from Monday to Saturday, from eight in the morning until six.",
    "You will be kept up to date by email, so there is no need to keep checking.",
    "Every message gets a full written answer from us within two working days.",
    "If anything changes on your side in the meantime, a short reply is all it takes.",
    "I hope that this makes the rest of your day a little easier.",
)
